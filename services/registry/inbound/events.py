"""What the registry listens to."""

from functools import partial

from services.contracts.events import (
    DriftDetected,
    ModelTrained,
    ReplicaReported,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
)
from services.kit.messaging.delivery import Subscription, on
from services.kit.timers import Handle
from services.registry import handlers
from services.registry.domain.desired import BAKE, DRAIN, STEP_TIMEOUT
from services.registry.ports import Ports


def subscriptions(ports: Ports) -> list[Subscription]:
    return [
        on(ModelTrained, partial(handlers.register_version, ports=ports)),
        on(TrainingFailed, partial(handlers.record_training_failed, ports=ports)),
        on(DriftDetected, partial(handlers.record_drift, ports=ports)),
        on(RolloutJudged, partial(handlers.take_verdict, ports=ports)),
        on(SloBreached, partial(handlers.take_breach, ports=ports)),
        on(ReplicaReported, partial(handlers.take_report, ports=ports)),
    ]


def timer_handlers(ports: Ports) -> dict[str, Handle]:
    return dict.fromkeys((BAKE, STEP_TIMEOUT, DRAIN), partial(handlers.timer_due, ports=ports))
