"""What inference does: follows the registry's wishes, brings versions up and down, answers requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.contracts.errors import Refusal
from services.contracts.events import DeploymentChanged
from services.contracts.names import DEFAULT_TENANT
from services.inference.domain.records import Answered, record_id
from services.inference.domain.requests import Reading, check_count, check_request_id, check_texts
from services.inference.domain.roster import Abandon, BringUp, Forget, Reinstate, Retire
from services.inference.domain.scoring import Scored
from services.inference.domain.versions import Held, State, VersionKey, Wanted, Wish
from services.inference.errors import ArtifactRefused, BringUpBroke, QueueFull
from services.inference.ports import Ports
from services.inference.telemetry import BRING_UP_SECONDS, BRING_UPS
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.messaging.envelope import Envelope, EventRef

LONGEST_PAUSE_SECONDS: Final = 30.0
DRAIN_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Classify:
    """One request. `version` 0 asks for the deployment's primary; `deadline` is in monotonic seconds.

    `whole` texts are refused where the model cannot read all of them; others are read as far as it can.
    """

    deployment: str
    texts: Sequence[str]
    deadline: float
    request: str = ""
    version: int = 0
    mirrored: bool = False
    whole: bool = False
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Classified:
    """The answer; `answers` in the order of the texts, their scores in the order of `labels`."""

    request: str
    deployment: str
    model: str
    version: int
    labels: Sequence[str]
    answers: list[Scored]


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


async def classify(command: Classify, ports: Ports) -> Classified:
    """Answers with a loaded version, and logs what came of it.

    Raises NoTexts, TooManyTexts, EmptyText, TextTooLong, ContextLengthExceeded, BadRequestId, UnknownDeployment,
    VersionNotServed, QueueFull, DeadlinePassed, EngineFailed.
    """
    started = ports.clock.monotonic()
    check_count(command.texts, ports.bounds.texts)
    request = command.request or ports.ids.new("request")
    check_request_id(request)
    held = ports.roster.route(command.deployment, command.version, command.tenant)
    loaded = ports.engines.loaded(held.key)
    reading = Reading(loaded.max_length, ports.bounds.characters_per_token)
    check_texts(command.texts, reading, whole=command.whole)
    ports.roster.enter(held.key)
    try:
        answers = await ports.engines.score(held.key, command.texts, command.deadline, whole=command.whole)
    except Refusal as refusal:
        _note(command, request, held, refusal.code, ports, started)
        raise
    finally:
        ports.roster.leave(held.key, ports.clock.monotonic())
    classified = Classified(request, command.deployment, held.wanted.model, held.key.version, loaded.labels, answers)
    _note(command, request, held, "ok", ports, started, classified)
    return classified


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
        except Refusal as refusal:
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


async def _reconcile(ports: Ports, cause: EventRef | None = None) -> None:
    roster = ports.roster
    for action in roster.plan():
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
    roster.refresh_roles()
    ports.reporter.changed(cause)


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


async def _step_back(key: VersionKey, refusal: Refusal, ports: Ports, cause: EventRef | None) -> float | None:
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


def _note(
    command: Classify,
    request: str,
    held: Held,
    outcome: str,
    ports: Ports,
    started: float,
    classified: Classified | None = None,
) -> None:
    """Counts the request and logs one line a text. A full queue says nothing about the version: it is not logged."""
    seconds = ports.clock.monotonic() - started
    ports.observe(command.tenant, command.deployment, held.key.version, outcome, seconds)
    if outcome == _QUEUE_FULL:
        return
    told: Literal["ok", "error"] = "ok" if classified else "error"
    at, trace = ports.clock.now(), telemetry.current_carrier().get("traceparent", "")
    for index, text in enumerate(command.texts):
        answer = classified.answers[index] if classified else None
        best = max(range(len(answer.scores)), key=answer.scores.__getitem__) if answer else 0
        ports.log.add(
            Answered(
                deployment=command.deployment,
                model=held.wanted.model,
                version=held.key.version,
                request=record_id(request, index, len(command.texts)),
                mirrored=command.mirrored,
                at=at,
                latency_ms=seconds * 1000,
                text=text,
                tokens=answer.tokens if answer else 0,
                outcome=told,
                label=classified.labels[best] if classified else None,
                score=answer.scores[best] if answer else None,
                embedding=answer.embedding_half if answer else None,
                trace=trace,
                tenant=command.tenant,
            )
        )


_QUEUE_FULL: Final = QueueFull(queued=0, capacity=0).code
