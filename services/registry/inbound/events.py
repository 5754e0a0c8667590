"""The events that the registry consumes, and its timers."""

from functools import partial

from faststream.kafka import KafkaBroker

from services.contracts.events import (
    DriftDetected,
    ModelTrained,
    ReplicaReported,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
)
from services.kit.jobs.timers import Handle
from services.kit.messaging.envelope import Envelope
from services.registry.domain.desired import BAKE, DRAIN, STEP_TIMEOUT
from services.registry.handlers import deployments, versions
from services.registry.ports import Ports


def subscribe(broker: KafkaBroker, ports: Ports) -> None:
    """The control events, each read by a group of its own: a backlog of one delays no other."""

    @broker.subscriber("model.trained", group_id="millrace.registry.model.trained", auto_offset_reset="earliest")
    async def on_model_trained(envelope: Envelope[ModelTrained]) -> None:
        await versions.register_version(envelope, ports)

    @broker.subscriber("training.failed", group_id="millrace.registry.training.failed", auto_offset_reset="earliest")
    async def on_training_failed(envelope: Envelope[TrainingFailed]) -> None:
        await versions.record_training_failed(envelope, ports)

    @broker.subscriber("drift.detected", group_id="millrace.registry.drift.detected", auto_offset_reset="earliest")
    async def on_drift_detected(envelope: Envelope[DriftDetected]) -> None:
        await versions.record_drift(envelope, ports)

    @broker.subscriber("rollout.judged", group_id="millrace.registry.rollout.judged", auto_offset_reset="earliest")
    async def on_rollout_judged(envelope: Envelope[RolloutJudged]) -> None:
        await deployments.on_rollout_judged(envelope, ports)

    @broker.subscriber("slo.breached", group_id="millrace.registry.slo.breached", auto_offset_reset="earliest")
    async def on_slo_breached(envelope: Envelope[SloBreached]) -> None:
        await deployments.on_slo_breached(envelope, ports)

    @broker.subscriber("replica.reported", group_id="millrace.registry.replica.reported", auto_offset_reset="earliest")
    async def on_replica_reported(envelope: Envelope[ReplicaReported]) -> None:
        await deployments.on_replica_reported(envelope, ports)


def timer_handlers(ports: Ports) -> dict[str, Handle]:
    return dict.fromkeys((BAKE, STEP_TIMEOUT, DRAIN), partial(deployments.timer_due, ports=ports))
