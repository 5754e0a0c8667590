"""What the trainer listens to."""

from functools import partial

from services.contracts.events import DatasetReady, DriftDetected, FeedbackReceived, InferenceLogged
from services.kit.bus.delivery import Subscription, on
from services.kit.bus.stream import HandleMany
from services.kit.timers import Handle
from services.trainer import handlers
from services.trainer.ports import Ports


def subscriptions(ports: Ports) -> list[Subscription]:
    return [
        on(DatasetReady, partial(handlers.take_dataset, ports=ports)),
        on(DriftDetected, partial(handlers.take_drift, ports=ports)),
    ]


def batches(ports: Ports) -> dict[type[InferenceLogged | FeedbackReceived], HandleMany]:
    """Topics of volume, read in batches; their handlers bear a batch twice."""
    return {
        InferenceLogged: partial(handlers.keep_texts, ports=ports),
        FeedbackReceived: partial(handlers.keep_labels, ports=ports),
    }


def timer_handlers(ports: Ports) -> dict[str, Handle]:
    return {handlers.WAIT_FOR_LABELS: partial(handlers.look_for_labels, ports=ports)}
