"""Wiring, and only wiring."""

import random
from dataclasses import dataclass
from typing import Final

from services.contracts.rpc import (
    batches_pb2_grpc,
    dead_letters_pb2_grpc,
    gateway_pb2_grpc,
    keys_pb2_grpc,
    open_inference_pb2_grpc,
)
from services.contracts.tasks import TASKS, Tasks
from services.gateway.domain.limits import LimitRules, Limits
from services.gateway.domain.routing import RoutingTable
from services.gateway.handlers.batches import BATCH_JOB, work_batch
from services.gateway.handlers.retrying import RetryingClient
from services.gateway.inbound.docs.page import BrowserKey, DocsPage
from services.gateway.inbound.events import compacted_topics, concurrent_topics
from services.gateway.inbound.grpc import BatchRpc, DeadLetterRpc, Forwarder, GatewayRpc, KeyRpc
from services.gateway.inbound.grpc_services import (
    BATCHES,
    DEAD_LETTERS,
    GATEWAY,
    INFERENCE,
    KEYS,
    MONITOR,
    REGISTRY,
    TRAINER,
)
from services.gateway.inbound.http.api import GatewayApi, Parts
from services.gateway.inbound.http.calls import Control
from services.gateway.inbound.http.inference import InferenceApp
from services.gateway.inbound.http.native_api import NativeApi
from services.gateway.inbound.http.request_reader import BodyLimits
from services.gateway.inbound.http.rest_app import ProtocolAdapter, RestApp
from services.gateway.inbound.http.uploads import UploadApp
from services.gateway.inbound.inference import InferenceRpc
from services.gateway.inbound.oip import grpc as oip_grpc
from services.gateway.inbound.oip import rest as oip_rest
from services.gateway.inbound.oip.models import Models
from services.gateway.inbound.oip.repository import Repository
from services.gateway.inbound.oip.routes import OpenInference
from services.gateway.inbound.openai.api import OpenAIApi
from services.gateway.inbound.sampling import Sampler
from services.gateway.inbound.uploading import UploadTimeouts
from services.gateway.outbound.dead_letters import KafkaDeadLetters
from services.gateway.outbound.inputs import RootedFiles
from services.gateway.outbound.keyring import KeyringThread
from services.gateway.outbound.limits import MemoryLimits
from services.gateway.outbound.replicas import ReplicaConnections, ShadowTraffic
from services.gateway.outbound.results import StoredResults
from services.gateway.outbound.store import MIGRATIONS, GatewayTx, store
from services.gateway.outbound.upstreams import UpstreamChannels
from services.gateway.ports import (
    Batching,
    BatchPolicy,
    DeadLetterTopics,
    Generator,
    Keys,
    Limiter,
    Mirrors,
    Policy,
    Ports,
    Replicas,
    RetryLimits,
    Upstreams,
)
from services.gateway.settings import GatewaySettings
from services.kit import service as service_parts
from services.kit.core.tabular import RowLimits
from services.kit.identity.keys import KeyringFile
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.unit_of_work import Job
from services.kit.service import Service
from services.kit.storage.uploads import UploadStore
from services.kit.transport.rpc import RpcServer


@dataclass(frozen=True, kw_only=True)
class Adapters(service_parts.Adapters):
    """And what the gateway alone opens."""

    replicas: Replicas | None = None
    mirrors: Mirrors | None = None
    upstreams: Upstreams | None = None
    dead_letters: DeadLetterTopics | None = None
    keys: Keys | None = None
    generator: Generator | None = None
    limiter: Limiter | None = None
    tasks: Tasks = TASKS


NOTHING_REPLACED: Final = Adapters()


def build(settings: GatewaySettings, adapters: Adapters = NOTHING_REPLACED) -> Service[Ports]:
    """The whole service; nothing is open before it runs."""
    service: Service[Ports] = Service(settings, adapters)
    uploads = _uploads(service, settings)
    tables = store(service.database(MIGRATIONS), service.clock, service.ids)
    upstreams = adapters.upstreams or _upstreams(service, settings)
    replicas = adapters.replicas or _replicas(service, settings)
    service.ports = ports = Ports(
        store=tables,
        clock=service.clock,
        ids=service.ids,
        routes=RoutingTable(stale_after_seconds=settings.stale_after_seconds),
        routes_read=lambda: service.checks["routes"](),  # noqa: PLW0108 - the reader is made below, and needs the ports
        replicas=replicas,
        mirrors=adapters.mirrors or _mirrors(service, settings, replicas),
        dead_letters=adapters.dead_letters or KafkaDeadLetters(settings.kafka_bootstrap_servers, service.sender),
        keys=adapters.keys or KeyringThread(KeyringFile(settings.keys_folder, service.clock)),
        generator=adapters.generator or random.Random(service.ids.seed()),
        policy=_policy(settings),
        batching=_batching(service, settings, uploads),
        uploads=uploads,
        tasks=adapters.tasks,
    )
    service.checks["routes"] = service.follows("routes", compacted_topics(ports), client="millrace-gateway").is_set
    _take_requests(service, settings, ports)
    _work_batches(service, settings, ports, tables)
    _open_endpoints(service, settings, ports, upstreams, adapters.limiter or _limiter(service, settings))
    return service


def _upstreams(service: Service[Ports], settings: GatewaySettings) -> UpstreamChannels:
    upstreams = UpstreamChannels(_addresses(settings))
    service.part("upstreams", close=upstreams.close)
    return upstreams


def _replicas(service: Service[Ports], settings: GatewaySettings) -> ReplicaConnections:
    replicas = ReplicaConnections(
        key=service.service_key, clock=service.clock, attempt_seconds=settings.attempt_seconds
    )
    service.part("replicas", close=replicas.close)
    return replicas


def _mirrors(service: Service[Ports], settings: GatewaySettings, replicas: Replicas) -> ShadowTraffic:
    mirrors = ShadowTraffic(replicas, limit=settings.mirror_limit)
    service.part("mirrors", close=mirrors.close)
    return mirrors


def _uploads(service: Service[Ports], settings: GatewaySettings) -> UploadStore:
    root, longest = settings.upload_root(), settings.upload_seconds
    uploads = UploadStore(root, service.clock, service.ids, limit=settings.upload_limit, partial_seconds=longest)
    service.part("uploads", close=uploads.close)
    service.runs("upload sweeper", uploads.run)
    return uploads


def _addresses(settings: GatewaySettings) -> dict[str, str]:
    return {
        REGISTRY.full_name: settings.registry_address,
        TRAINER.full_name: settings.trainer_address,
        MONITOR.full_name: settings.monitor_address,
    }


def _batching(service: Service[Ports], settings: GatewaySettings, uploads: UploadStore) -> Batching:
    inputs = RootedFiles(settings.roots(), _row_limits(settings), uploads)
    return Batching(inputs, StoredResults(settings.results_root()), _batch_policy(settings), service.wake_workers)


def _work_batches(
    service: Service[Ports], settings: GatewaySettings, ports: Ports, tables: SqlStore[GatewayTx]
) -> None:
    client = RetryingClient(ports, _batch_retry_limits(settings))

    async def work(job: Job) -> None:
        await work_batch(job, client, ports)

    for number in range(settings.batch_workers):
        service.works(f"batches {number + 1}", tables, work, kind=BATCH_JOB, lease_seconds=settings.batch_lease_seconds)


def _take_requests(service: Service[Ports], settings: GatewaySettings, ports: Ports) -> None:
    """Requests that come by Kafka, shared with the other gateways."""
    client = RetryingClient(ports, _kafka_retry_limits(settings))
    handlers = concurrent_topics(ports, client, Sampler(settings.trace_ratio, ports.generator), service.sender)
    service.consumes_concurrently(handlers, limit=settings.async_held, limit_bytes=settings.async_held_bytes)


def _open_endpoints(
    service: Service[Ports], settings: GatewaySettings, ports: Ports, upstreams: Upstreams, limiter: Limiter
) -> None:
    sampler = Sampler(settings.trace_ratio, ports.generator)
    limits = BodyLimits(bytes=settings.body_limit_bytes, seconds=settings.body_seconds)
    seconds, follow = settings.request_seconds, settings.follow_seconds
    rpc = service.grpc(gate=limiter, receive_bytes=settings.body_limit_bytes)
    timeouts = UploadTimeouts(settings.upload_chunk_seconds, settings.upload_seconds)
    gateway = GatewayRpc(ports, timeouts)
    rpc.add(gateway_pb2_grpc.add_GatewayServiceServicer_to_server, gateway, GATEWAY.full_name)
    rpc.add(batches_pb2_grpc.add_BatchServiceServicer_to_server, BatchRpc(ports), BATCHES.full_name)
    inference = InferenceRpc(ports, sampler, limiter, request_seconds=seconds)
    rpc.add_generic([inference.handler()], [INFERENCE.full_name])
    rpc.add(keys_pb2_grpc.add_KeyServiceServicer_to_server, KeyRpc(ports), KEYS.full_name)
    register = dead_letters_pb2_grpc.add_DeadLetterServiceServicer_to_server
    rpc.add(register, DeadLetterRpc(ports), DEAD_LETTERS.full_name)
    forwarder = Forwarder((REGISTRY, TRAINER, MONITOR), upstreams, request_seconds=seconds, follow_seconds=follow)
    rpc.add_generic([forwarder], [REGISTRY.full_name, TRAINER.full_name, MONITOR.full_name])
    hot = InferenceApp(ports, sampler, limits)
    open_inference = _open_inference(service, settings, ports, upstreams, rpc, sampler, limits, limiter=limiter)
    control = Control(ports, upstreams, limits, follow_seconds=follow)
    api = GatewayApi(Parts(control, sampler, open_inference, {"UploadDataset": UploadApp(ports, timeouts).serve}))
    batches = BodyLimits(bytes=settings.batch_body_limit_bytes, seconds=settings.body_seconds)
    adapters: dict[str, ProtocolAdapter] = {
        "v1": OpenAIApi(ports, sampler, batches, api),
        "v2": oip_rest.OpenInferenceApi(ports, sampler, limits, api),
        "docs": DocsPage(api.openapi),
    }
    rest = RestApp(
        service.keyring,
        limiter,
        settings.hosts(),
        NativeApi(hot, api),
        adapters=adapters,
        health=oip_rest.health(lambda: _is_ready(service)),
        clock=service.clock,
        request_seconds=seconds,
    )
    service.http(BrowserKey(rest))


def _limiter(service: Service[Ports], settings: GatewaySettings) -> Limiter:
    rules = limits_of(settings)
    memory = MemoryLimits(rules, service.clock)
    if not settings.redis_url:
        return memory
    from services.gateway.outbound.shared_limits import RedisLimits  # only where a Redis is named

    shared = RedisLimits(settings.redis_url, rules, memory, service.clock, owner=service.ids.new("gateway"))
    service.part("Redis", close=shared.close)
    service.runs("limits", shared.run)
    return shared


def _open_inference(
    service: Service[Ports],
    settings: GatewaySettings,
    ports: Ports,
    upstreams: Upstreams,
    rpc: RpcServer,
    sampler: Sampler,
    limits: BodyLimits,
    *,
    limiter: Limiter,
) -> OpenInference:
    """The Open Inference Protocol: its gRPC service is added, and what its REST routes stand on given back."""
    seconds, models = settings.request_seconds, Models(ports)
    repository = Repository(ports, upstreams, models)
    servicer = oip_grpc.OpenInferenceRpc(
        ports, models, repository, sampler, limiter, is_ready=lambda: _is_ready(service), request_seconds=seconds
    )
    register = open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
    rpc.add(register, servicer, oip_grpc.SERVICE.full_name)
    rpc.add_generic([oip_grpc.Unoffered()], [])
    return OpenInference(models, repository, limits)


def _is_ready(service: Service[Ports]) -> bool:
    return all(check() for check in service.checks.values())


def _policy(settings: GatewaySettings) -> Policy:
    return Policy(
        text_limit_chars=settings.text_limit_chars,
        stream_seconds=settings.stream_seconds,
        ready_wait_seconds=settings.ready_wait_seconds,
        outbox_limit=settings.outbox_limit,
        chunks_at_once=settings.chunks_at_once,
        upload_limit_bytes=settings.upload_limit_bytes,
    )


def _kafka_retry_limits(settings: GatewaySettings) -> RetryLimits:
    return RetryLimits(
        concurrency=settings.async_concurrency,
        tenant_concurrency=settings.async_tenant_concurrency,
        request_seconds=settings.request_seconds,
        ready_wait_seconds=settings.async_ready_wait_seconds,
    )


def _batch_policy(settings: GatewaySettings) -> BatchPolicy:
    return BatchPolicy(
        part_rows=settings.batch_part_rows,
        texts=settings.batch_texts,
        requests=settings.batch_requests,
        lease_seconds=settings.batch_lease_seconds,
        open_limit=settings.batch_limit,
    )


def _batch_retry_limits(settings: GatewaySettings) -> RetryLimits:
    return RetryLimits(
        concurrency=settings.batch_requests,
        tenant_concurrency=settings.batch_requests,
        request_seconds=settings.request_seconds,
        ready_wait_seconds=settings.batch_ready_wait_seconds,
        yields_at=settings.batch_yields_at,
    )


def _row_limits(settings: GatewaySettings) -> RowLimits:
    return RowLimits(settings.batch_bytes, settings.batch_rows, settings.text_limit_chars)


def limits_of(settings: GatewaySettings) -> LimitRules:
    usual = Limits(
        requests_per_second=settings.limit_requests_per_second,
        burst=settings.limit_burst,
        concurrent=settings.limit_concurrent,
        tokens_per_minute=settings.limit_tokens_per_minute,
    )
    return LimitRules(usual=usual, admin_factor=settings.limit_admin_factor)
