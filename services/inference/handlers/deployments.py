"""Deployments: the actual versions follow the desired ones, as far as this replica is to load them."""

from typing import Final

from services.contracts.errors import MillraceError
from services.contracts.events import DeploymentChanged, ReplicaReported
from services.inference.domain.loaded_models import Action, BringUp, CancelLoad, Drain, Forget, Undrain
from services.inference.domain.versions import DesiredDeployment, DesiredVersion, State, VersionKey
from services.inference.errors import ArtifactRefused, BringUpBroke
from services.inference.ports import Ports
from services.inference.telemetry import BRING_UP_SECONDS, BRING_UPS
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.messaging.envelope import Envelope, EventRef

LONGEST_PAUSE_SECONDS: Final = 30.0
DRAIN_LOOK_SECONDS: Final = 0.5


async def restore(ports: Ports) -> None:
    """Takes up what was wanted before the restart, without waiting for the broker."""
    for deployment in await ports.desired_state.load():
        ports.models.apply(deployment)
    await _reconcile(ports)


async def on_deployment_changed(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Follows a deployment's newest generation; an older one, or the same again, changes nothing."""
    if not ports.models.apply(DesiredDeployment(envelope.event, envelope.tenant)):
        return
    await ports.desired_state.save(list(ports.models.deployments.values()))
    await _reconcile(ports, envelope)


async def on_replica_reported(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """Another replica came, changed or left: the deployments may be shared in another way."""
    report, models = envelope.event, ports.models
    age = (ports.clock.now() - envelope.time).total_seconds()
    reported_at = ports.clock.monotonic() - max(0.0, age)
    if report.replica != models.replica and models.peers.reported(report, reported_at):
        await share_deployments(ports)


async def share_deployments(ports: Ports) -> None:
    """Loads and lets go what the placements ask for, now that some replicas may be gone."""
    ports.models.peers.forget_silent(ports.clock.monotonic())
    await _reconcile(ports, only_if_needed=True)


async def watch_peers(ports: Ports, seconds: float) -> None:
    """Notices replicas that fall silent, without end."""
    while True:
        await ports.clock.sleep(seconds)
        await share_deployments(ports)


async def bring_up(key: VersionKey, ports: Ports, cause: EventRef | None = None) -> None:
    """Fetches, checks, loads and warms a version, while those that are loaded serve on.

    What comes of it is reported as caused by `cause`, the change that asks for it.
    A part that does not answer is asked again after growing pauses; a refused artifact is refused for good.
    """
    began = ports.clock.monotonic()
    while True:
        try:
            async with ports.load_tasks.load_slot():
                with telemetry.span(f"load {key.deployment}/{key.version}", attributes=_attributes(key)):
                    await _bring_up_once(ports.models.actual[key].desired, ports)
                    ports.reporter.changed(cause)
            BRING_UPS.add(1, tenant=key.tenant, outcome="ready")
            BRING_UP_SECONDS.record(ports.clock.monotonic() - began, tenant=key.tenant)
            return
        except MillraceError as error:
            pause = await _step_back(key, error, ports, cause)
        except Exception:  # noqa: BLE001 - a bug of ours must not leave the version loading for ever
            logger.exception("bringing up version %s of %s broke", key.version, key.deployment)
            pause = await _step_back(key, BringUpBroke(), ports, cause)
        if pause is None:
            return
        await ports.clock.sleep(pause)


async def drain(key: VersionKey, ports: Ports) -> None:
    """Unloads a draining version once its last request has ended and no late one has come for a while."""
    since = ports.clock.monotonic()
    while ports.models.idle_for(key, ports.clock.monotonic(), since) < ports.bounds.drain_grace_seconds:
        await ports.clock.sleep(DRAIN_LOOK_SECONDS)
    ports.models.move(key, State.UNLOADED)
    ports.reporter.changed()
    await ports.engines.unload(key)
    logger.info("version %s of %s is unloaded", key.version, key.deployment)
    await _prune(ports)


async def _reconcile(ports: Ports, cause: EventRef | None = None, *, only_if_needed: bool = False) -> None:
    """One at a time: a plan is carried out before the next one is made."""
    async with ports.reconciling:
        plan = ports.models.plan()
        if only_if_needed and not plan:
            return
        for action in plan:
            await _carry_out(action, ports, cause)
        ports.models.refresh_roles()
        ports.reporter.changed(cause)


async def _carry_out(action: Action, ports: Ports, cause: EventRef | None) -> None:
    models = ports.models
    match action:
        case BringUp(desired):
            models.begin(desired)
            ports.load_tasks.start(desired.key, bring_up(desired.key, ports, cause))
        case CancelLoad(key):
            await ports.load_tasks.stop(key)
            models.move(key, State.UNLOADED)
            await ports.engines.unload(key)
        case Drain(key):
            models.move(key, State.DRAINING)
            ports.load_tasks.start(key, drain(key, ports))
        case Undrain(key):
            await ports.load_tasks.stop(key)
            models.move(key, State.READY)
        case Forget(key):
            models.forget(key)


async def _bring_up_once(desired: DesiredVersion, ports: Ports) -> None:
    key, precision = desired.key, desired.key.precision
    ports.models.move(key, State.FETCHING)
    with telemetry.span("fetch artifact"):
        folder = await ports.artifacts.fetch(desired.artifact)
    ports.models.move(key, State.CHECKING)
    with telemetry.span("check artifact"):
        await ports.checker.check(folder, precision)
    ports.models.move(key, State.LOADING)
    with telemetry.span("load engine"):
        await ports.engines.load(key, folder, precision)
    ports.models.move(key, State.WARMING)
    with telemetry.span("warm engine"):
        await ports.engines.warm(key)
    ports.models.move(key, State.READY)
    logger.info("version %s of %s is ready (%s)", key.version, key.deployment, precision)


async def _step_back(key: VersionKey, error: MillraceError, ports: Ports, cause: EventRef | None) -> float | None:
    """After a failed bring-up: the seconds until the next attempt, or None when this one was the last."""
    actual = ports.models.actual[key]
    code = error.reason_code if isinstance(error, ArtifactRefused) else error.code
    again = error.retryable and actual.attempts < ports.bounds.bring_up_attempts
    to = State.DESIRED if again else State.FAILED
    ports.models.move(key, to, reason=f"{code}: {error}", retryable=error.retryable)
    logger.warning("version %s of %s is not loaded: %s: %s", key.version, key.deployment, code, error)
    BRING_UPS.add(1, tenant=key.tenant, outcome=code)
    await ports.engines.unload(key)
    ports.reporter.changed(cause)
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** (actual.attempts - 1)) if again else None


async def _prune(ports: Ports) -> None:
    """Drops the local copies of what no deployment wants any more."""
    deployments = ports.models.deployments.values()
    desired = {target.artifact.digest for deployment in deployments for target in deployment.changed.targets}
    await ports.artifacts.prune(desired | {key.digest for key in ports.models.actual})


def _attributes(key: VersionKey) -> dict[str, str | int]:
    return {
        "millrace.deployment": key.deployment,
        "millrace.tenant": key.tenant,
        "millrace.version": key.version,
        "millrace.precision": key.precision.value,
    }
