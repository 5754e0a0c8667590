"""What inference does: follows the registry's wishes, brings versions up and down, answers requests."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from services.contracts.errors import Kind, MillraceError
from services.contracts.events import DeploymentChanged, ReplicaReported
from services.contracts.names import DEFAULT_TENANT
from services.contracts.tasks.errors import TaskNotServed
from services.contracts.tasks.records import Source
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.stream import Delta, PredictEvent, Result
from services.contracts.tasks.task import AnswerInfo, RequestLimits, StreamingTask
from services.inference.domain.records import LoggedRequest, record_of
from services.inference.domain.roster import Abandon, Action, BringUp, Forget, Reinstate, Retire
from services.inference.domain.scoring import Chunk, Done, EngineRequest
from services.inference.domain.versions import Held, State, VersionKey, Wanted, Wish
from services.inference.errors import ArtifactRefused, BringUpBroke, EngineFailed
from services.inference.ports import Ports
from services.inference.telemetry import BRING_UP_SECONDS, BRING_UPS
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.messaging.envelope import Envelope, EventRef

LONGEST_PAUSE_SECONDS: Final = 30.0
DRAIN_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Predict:
    """One request of a task. `version` 0 asks for the deployment's primary; `deadline` is in monotonic seconds."""

    deployment: str
    task: str
    payload: bytes
    deadline: float
    request: str = ""
    version: int = 0
    source: Source = Source.LIVE
    tenant: str = DEFAULT_TENANT
    model: str = ""
    """Whose version is meant; the deployment's where it is empty."""


async def restore(ports: Ports) -> None:
    """Takes up what was wanted before the restart, without waiting for the broker."""
    for wish in await ports.remembered.load():
        ports.roster.adopt(wish)
    await _reconcile(ports)


async def adopt_deployment(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Follows a deployment's newest generation; an older one, or the same again, changes nothing."""
    if not ports.roster.adopt(Wish(envelope.event, envelope.tenant)):
        return
    await ports.remembered.save(list(ports.roster.deployments.values()))
    await _reconcile(ports, envelope)


async def on_replica_reported(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """Another replica came, changed or left: the deployments may be shared in another way."""
    report, roster = envelope.event, ports.roster
    age = (ports.clock.now() - envelope.time).total_seconds()
    reported_at = ports.clock.monotonic() - max(0.0, age)
    if report.replica != roster.replica and roster.peers.reported(report, reported_at):
        await share_deployments(ports)


async def share_deployments(ports: Ports) -> None:
    """Loads and lets go what the placements ask for, now that some replicas may be gone."""
    ports.roster.peers.forget_silent(ports.clock.monotonic())
    await _reconcile(ports, only_if_needed=True)


async def watch_peers(ports: Ports, seconds: float) -> None:
    """Notices replicas that fall silent, without end."""
    while True:
        await ports.clock.sleep(seconds)
        await share_deployments(ports)


async def predict(command: Predict, ports: Ports) -> AsyncGenerator[PredictEvent, None]:
    """Answers with a loaded version: deltas, if its task has any, and a result; and logs what came of it.

    Raises UnknownTask, TaskNotServed, what the task refuses, UnknownDeployment, VersionNotServed, QueueFull,
    DeadlinePassed, EngineFailed.
    """
    task = ports.tasks.named(command.task)
    request = task.decode(command.payload)
    held = ports.roster.route(command.deployment, command.version, command.tenant, model=command.model)
    loaded = ports.engines.loaded(held.key)
    if task.name not in loaded.tasks:
        served = ", ".join(sorted(loaded.tasks))
        raise TaskNotServed(task=task.name, deployment=command.deployment, served=served)
    characters = loaded.max_length * ports.bounds.characters_per_token
    task.check(request, RequestLimits(characters=characters, tokens=loaded.max_length))
    served_by = _Serving(command, task, request, held, ports)
    ports.roster.enter(held.key)
    try:
        async with aclosing(ports.engines.submit(EngineRequest(held.key, task, request, command.deadline))) as events:
            async for event in events:
                if isinstance(event, Done):
                    yield served_by.answered(event)
                    return
                yield served_by.chunk(event)
        raise EngineFailed
    except MillraceError as refusal:
        served_by.refused(refusal)
        raise
    finally:
        ports.roster.leave(held.key, ports.clock.monotonic())


async def bring_up(key: VersionKey, ports: Ports, cause: EventRef | None = None) -> None:
    """Fetches, checks, loads and warms a version, while those that are loaded serve on.

    What comes of it is reported as caused by `cause`, the wish for it.
    A part that does not answer is asked again after growing pauses; a refused artifact is refused for good.
    """
    began = ports.clock.monotonic()
    while True:
        try:
            async with ports.crew.turn():
                with telemetry.span(f"load {key.deployment}/{key.version}", attributes=_attributes(key)):
                    await _bring_up_once(ports.roster.held[key].wanted, ports)
                    ports.reporter.changed(cause)
            BRING_UPS.add(1, tenant=key.tenant, outcome="ready")
            BRING_UP_SECONDS.record(ports.clock.monotonic() - began, tenant=key.tenant)
            return
        except MillraceError as refusal:
            pause = await _step_back(key, refusal, ports, cause)
        except Exception:  # noqa: BLE001 - a bug of ours must not leave the version loading for ever
            logger.exception("bringing up version %s of %s broke", key.version, key.deployment)
            pause = await _step_back(key, BringUpBroke(), ports, cause)
        if pause is None:
            return
        await ports.clock.sleep(pause)


async def retire(key: VersionKey, ports: Ports) -> None:
    """Unloads a draining version once its last request has ended and no late one has come for a while."""
    since = ports.clock.monotonic()
    while ports.roster.idle_for(key, ports.clock.monotonic(), since) < ports.bounds.drain_grace_seconds:
        await ports.clock.sleep(DRAIN_LOOK_SECONDS)
    ports.roster.move(key, State.UNLOADED)
    ports.reporter.changed()
    await ports.engines.unload(key)
    logger.info("version %s of %s is unloaded", key.version, key.deployment)
    await _prune(ports)


async def _reconcile(ports: Ports, cause: EventRef | None = None, *, only_if_needed: bool = False) -> None:
    """One at a time: a plan is carried out before the next one is made."""
    async with ports.reconciling:
        plan = ports.roster.plan()
        if only_if_needed and not plan:
            return
        for action in plan:
            await _carry_out(action, ports, cause)
        ports.roster.refresh_roles()
        ports.reporter.changed(cause)


async def _carry_out(action: Action, ports: Ports, cause: EventRef | None) -> None:
    roster = ports.roster
    match action:
        case BringUp(wanted):
            roster.begin(wanted)
            ports.crew.start(wanted.key, bring_up(wanted.key, ports, cause))
        case Abandon(key):
            await ports.crew.stop(key)
            roster.move(key, State.UNLOADED)
            await ports.engines.unload(key)
        case Retire(key):
            roster.move(key, State.DRAINING)
            ports.crew.start(key, retire(key, ports))
        case Reinstate(key):
            await ports.crew.stop(key)
            roster.move(key, State.READY)
        case Forget(key):
            roster.forget(key)


async def _bring_up_once(wanted: Wanted, ports: Ports) -> None:
    key, precision = wanted.key, wanted.key.precision
    ports.roster.move(key, State.FETCHING)
    with telemetry.span("fetch artifact"):
        folder = await ports.artifacts.fetch(wanted.artifact)
    ports.roster.move(key, State.CHECKING)
    with telemetry.span("check artifact"):
        await ports.checker.check(folder, precision)
    ports.roster.move(key, State.LOADING)
    with telemetry.span("load engine"):
        await ports.engines.load(key, folder, precision)
    ports.roster.move(key, State.WARMING)
    with telemetry.span("warm engine"):
        await ports.engines.warm(key)
    ports.roster.move(key, State.READY)
    logger.info("version %s of %s is ready (%s)", key.version, key.deployment, precision)


async def _step_back(key: VersionKey, refusal: MillraceError, ports: Ports, cause: EventRef | None) -> float | None:
    """After a failed bring-up: the seconds until the next attempt, or None when this one was the last."""
    held = ports.roster.held[key]
    code = refusal.reason_code if isinstance(refusal, ArtifactRefused) else refusal.code
    again = refusal.retryable and held.attempts < ports.bounds.bring_up_attempts
    to = State.DESIRED if again else State.FAILED
    ports.roster.move(key, to, reason=f"{code}: {refusal}", retryable=refusal.retryable)
    logger.warning("version %s of %s is not loaded: %s: %s", key.version, key.deployment, code, refusal)
    BRING_UPS.add(1, tenant=key.tenant, outcome=code)
    await ports.engines.unload(key)
    ports.reporter.changed(cause)
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** (held.attempts - 1)) if again else None


async def _prune(ports: Ports) -> None:
    """Drops the local copies of what no deployment wants any more."""
    wishes = ports.roster.deployments.values()
    wanted = {target.artifact.digest for wish in wishes for target in wish.changed.targets}
    await ports.artifacts.prune(wanted | {key.digest for key in ports.roster.held})


def _attributes(key: VersionKey) -> dict[str, str | int]:
    return {
        "millrace.deployment": key.deployment,
        "millrace.tenant": key.tenant,
        "millrace.version": key.version,
        "millrace.precision": key.precision.value,
    }


class _Serving:
    """One request under way on a version: what becomes of it is counted, and logged where it says something of it."""

    def __init__(self, command: Predict, task: AnyTask, request: Any, held: Held, ports: Ports) -> None:
        self._command = command
        self._task = task
        self._request = request
        self._id = command.request or ports.ids.new("request")
        self._held = held
        self._ports = ports
        self._started = ports.clock.monotonic()

    def chunk(self, event: Chunk) -> Delta:
        """Raises EngineFailed where the task's answers come in one piece."""
        if not isinstance(self._task, StreamingTask):
            raise EngineFailed
        return Delta(self._task.encode_chunk(event.chunk))

    def answered(self, done: Done) -> Result:
        model, version = self._held.wanted.model, self._held.key.version
        self._observe("ok")
        self._log(done)
        info = AnswerInfo(self._id, self._command.deployment, model, version, done.tokens)
        return Result(self._task.encode_result(done.result, info), model, version, done.tokens)

    def refused(self, refusal: MillraceError) -> None:
        """Only a fault of the version is held against it: not its callers' mistakes, nor a queue or a deadline."""
        self._observe(refusal.code)
        if refusal.kind is Kind.INTERNAL:
            self._log(None)

    def _observe(self, outcome: str) -> None:
        command, seconds = self._command, self._ports.clock.monotonic() - self._started
        self._ports.observe(command.tenant, command.deployment, self._held.key.version, outcome, seconds)

    def _log(self, done: Done | None) -> None:
        ports, command = self._ports, self._command
        record = record_of(
            self._task,
            self._request,
            done,
            request_id=self._id,
            version=self._held.key.version,
            variant=self._held.key.precision,
            source=command.source,
            at=ports.clock.now(),
            latency_ms=(ports.clock.monotonic() - self._started) * 1000,
            sampling=ports.sampling,
        )
        ports.log.add(
            LoggedRequest(
                deployment=command.deployment,
                model=self._held.wanted.model,
                task=self._task.name,
                record=record,
                trace=telemetry.current_carrier().get("traceparent", ""),
                tenant=command.tenant,
            )
        )
