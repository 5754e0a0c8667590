"""What the trainer listens to."""

from functools import partial

from services.contracts.events import DatasetReady, DriftDetected, FeedbackReceived, InferenceLogged
from services.kit.messaging.batch_consumer import BatchHandler
from services.kit.messaging.delivery import Subscription, on
from services.kit.timers import Handle
from services.trainer.handlers import asking, executions, traffic
from services.trainer.ports import Ports


def subscriptions(ports: Ports) -> list[Subscription]:
    return [
        on(DatasetReady, partial(asking.take_dataset, ports=ports)),
        on(DriftDetected, partial(asking.take_drift, ports=ports)),
    ]


def batches(ports: Ports) -> dict[type[InferenceLogged | FeedbackReceived], BatchHandler]:
    """Topics of volume, read in batches; their handlers bear a batch twice."""
    return {
        InferenceLogged: partial(traffic.keep_texts, ports=ports),
        FeedbackReceived: partial(traffic.keep_labels, ports=ports),
    }


def timer_handlers(ports: Ports) -> dict[str, Handle]:
    return {
        asking.WAIT_FOR_LABELS: partial(asking.look_for_labels, ports=ports),
        executions.END_EXECUTION: partial(executions.end_execution, ports=ports),
    }
