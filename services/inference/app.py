"""Wiring, and only wiring."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from services.contracts.artifact import Device, Precision
from services.contracts.events import ReplicaReported
from services.contracts.rpc import replica_pb2_grpc
from services.contracts.tasks import TASKS, Tasks
from services.inference.domain.batching import Limits
from services.inference.domain.loaded_models import LoadedModels
from services.inference.domain.peers import Peers
from services.inference.domain.records import Sampling
from services.inference.domain.scoring import BatchFacts, StepFacts
from services.inference.handlers.deployments import restore, watch_peers
from services.inference.inbound.events import compacted_topics
from services.inference.inbound.grpc import SERVICE_NAME, ReplicaRpc
from services.inference.outbound.artifacts import CachedArtifacts
from services.inference.outbound.desired_state import DesiredStateFile, ReportSequence
from services.inference.outbound.engine import OrtEngine, device_for
from services.inference.outbound.engines import EnginesByTask
from services.inference.outbound.generation.engines import GenerationEngines, GenerationLimits
from services.inference.outbound.load_tasks import OwnedLoadTasks
from services.inference.outbound.logs import Logging, LogWriter
from services.inference.outbound.pool import WorkerPool
from services.inference.outbound.reporter import ReplicaReporter, Reporting
from services.inference.outbound.sandbox import Sandbox
from services.inference.ports import Artifacts, Bounds, Checker, DesiredStateCache, Engines, Ports
from services.inference.settings import InferenceSettings
from services.inference.telemetry import QUEUED, observe_batch, observe_prompt, observe_request, observe_step
from services.kit import service as service_parts
from services.kit.service import Service


@dataclass(frozen=True)
class _Machine:
    """What the settings come to on this machine."""

    device: Device
    workers: int
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class Adapters(service_parts.Adapters):
    """And what inference alone opens."""

    engines: Engines | None = None
    checker: Checker | None = None
    desired_state: DesiredStateCache | None = None
    sequence: ReportSequence | None = None
    artifact_cache: Artifacts | None = None
    tasks: Tasks = TASKS


NOTHING_REPLACED: Final = Adapters()


def build(settings: InferenceSettings, adapters: Adapters = NOTHING_REPLACED) -> Service[Ports]:
    """The whole service; nothing is open before it runs."""
    service: Service[Ports] = Service(settings, adapters)
    machine = _machine(settings)
    engines = adapters.engines or _engines(service, settings, machine)
    load_tasks, log = OwnedLoadTasks(), _log(service, settings)
    rpc_server = service.grpc(services_only=True)
    models = LoadedModels(machine.device, settings.replica, Peers(settings.peer_timeout_seconds))
    address = _advertised(settings, rpc_server.port)
    reporter = _reporter(service, settings, models, address, adapters.sequence)
    service.ports = ports = Ports(
        models=models,
        engines=engines,
        artifacts=adapters.artifact_cache or CachedArtifacts(service.artifacts, settings.data_folder / "artifacts"),
        checker=adapters.checker or Sandbox(rows=machine.limits.rows, seconds=settings.check_seconds),
        desired_state=adapters.desired_state or DesiredStateFile(settings.data_folder / "deployments.json"),
        load_tasks=load_tasks,
        reporter=reporter,
        log=log,
        clock=service.clock,
        ids=service.ids,
        bounds=Bounds(
            characters_per_token=settings.characters_per_token, drain_grace_seconds=settings.drain_grace_seconds
        ),
        sampling=Sampling(text=settings.log_text, embedding=settings.log_embedding),
        tasks=adapters.tasks,
        observe=observe_request,
    )
    rpc = ReplicaRpc(ports, settings.load_seconds)
    rpc_server.add(replica_pb2_grpc.add_ReplicaServiceServicer_to_server, rpc, SERVICE_NAME)
    service.part("streams", close=rpc.close)
    service.part("bringing up", open=partial(restore, ports), close=load_tasks.close)
    _follow(service, settings, ports, reporter)
    service.http()
    return service


def _machine(settings: InferenceSettings) -> _Machine:
    device = device_for(settings.device)
    cores = len(os.sched_getaffinity(0))
    rows, tokens, workers = (64, 32_768, 2) if device is Device.CUDA else (8, 1_024, cores)
    limits = Limits(
        capacity=settings.capacity_texts,
        rows=settings.batch_rows or rows,
        tokens=settings.batch_tokens or tokens,
        padding=settings.batch_padding,
    )
    return _Machine(device, settings.workers or workers, limits)


def _engines(service: Service[Ports], settings: InferenceSettings, machine: _Machine) -> Engines:
    generation = GenerationEngines(
        GenerationLimits(
            rows=settings.generation_rows,
            cache_tokens=settings.generation_cache_tokens,
            waiting=settings.generation_waiting,
            answer_tokens=settings.generation_answer_tokens,
            prefix_cache_mib=settings.generation_prefix_cache_mib,
            threads=settings.generation_threads or len(os.sched_getaffinity(0)),
        ),
        clock=service.clock,
        new_seed=service.ids.seed,
        observe=_observe_step,
    )
    engines = EnginesByTask(_pool(service, machine), generation)
    QUEUED.follow(lambda: engines.queued)
    service.part("engines of generation", close=generation.stop)
    return engines


def _pool(service: Service[Ports], machine: _Machine) -> WorkerPool:
    def load(folder: Path, precision: Precision) -> OrtEngine:
        return OrtEngine.load(folder, precision, machine.device)

    pool = WorkerPool(machine.limits, machine.workers, load=load, monotonic=service.clock.monotonic, observe=_observe)
    service.part("engines", open=pool.start, close=pool.stop)
    return pool


def _observe(tenant: str, facts: BatchFacts) -> None:
    observe_batch(
        tenant,
        rows=facts.rows,
        tokens=facts.tokens,
        padding=facts.padding,
        engine_seconds=facts.engine_seconds,
        longest_wait_seconds=facts.longest_wait_seconds,
    )


def _observe_step(facts: StepFacts) -> None:
    if facts.is_prompt:
        observe_prompt(facts.tenant, tokens=facts.tokens, seconds=facts.seconds)
    else:
        observe_step(facts.tenant, rows=facts.tokens, seconds=facts.seconds)


def _log(service: Service[Ports], settings: InferenceSettings) -> LogWriter:
    log = LogWriter(
        Logging(
            replica=settings.replica,
            writer=service.sender,
            clock=service.clock,
            ids=service.ids,
            seconds=settings.log_seconds,
            records=settings.log_records,
            capacity=settings.log_capacity,
        )
    )
    service.part("last answers logged", close=log.close)
    service.runs("log of answers", log.run)
    return log


def _reporter(
    service: Service[Ports],
    settings: InferenceSettings,
    models: LoadedModels,
    address: str,
    sequence: ReportSequence | None,
) -> ReplicaReporter:
    def build_report(sequence: int, leaving: bool) -> ReplicaReported:
        return models.report(
            address=address,
            sequence=sequence,
            capacity=settings.capacity_texts,
            leaving=leaving,
        )

    reporting = Reporting(
        writer=service.sender,
        clock=service.clock,
        ids=service.ids,
        sequence=sequence or ReportSequence(settings.data_folder / "sequence.json", service.clock.now),
        heartbeat_seconds=settings.heartbeat_seconds,
    )
    return ReplicaReporter(build_report, reporting)


def _follow(service: Service[Ports], settings: InferenceSettings, ports: Ports, reporter: ReplicaReporter) -> None:
    # Closed in reverse: first no change is taken any more, then the last report goes out, then the streams end.
    service.part("last report", close=reporter.report_leaving)
    service.runs("reports", reporter.run)
    caught_up = service.follows("desired state", compacted_topics(ports), client=f"millrace-{settings.replica}")
    service.runs("placement", partial(watch_peers, ports, settings.heartbeat_seconds))
    service.checks["deployments known"] = lambda: caught_up.is_set() or bool(ports.models.deployments)
    service.checks["primaries loaded"] = lambda: ports.models.ready


def _advertised(settings: InferenceSettings, port: int) -> str:
    """What the gateway connects to: an address to listen on everywhere is none to call."""
    host = settings.advertised_host or settings.host
    return f"{host}:{port}"
