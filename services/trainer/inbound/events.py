"""The events that the trainer consumes, and its timers."""

from functools import partial

from faststream.kafka import KafkaBroker

from services.contracts.events import DatasetReady, DriftDetected, FeedbackReceived, InferenceLogged
from services.kit.jobs.timers import Handle
from services.kit.messaging.batch_consumer import BatchHandler
from services.kit.messaging.envelope import Envelope
from services.trainer.handlers import executions, runs, traffic
from services.trainer.ports import Ports


def subscribe(broker: KafkaBroker, ports: Ports) -> None:
    """The control events, each read by a group of its own: a backlog of one delays no other."""

    @broker.subscriber("dataset.ready", group_id="millrace.trainer.dataset.ready", auto_offset_reset="earliest")
    async def on_dataset_ready(envelope: Envelope[DatasetReady]) -> None:
        await runs.on_dataset_ready(envelope, ports)

    @broker.subscriber("drift.detected", group_id="millrace.trainer.drift.detected", auto_offset_reset="earliest")
    async def on_drift_detected(envelope: Envelope[DriftDetected]) -> None:
        await runs.on_drift_detected(envelope, ports)


def batches(ports: Ports) -> dict[type[InferenceLogged | FeedbackReceived], BatchHandler]:
    """Topics of volume, read in batches; their handlers bear a batch twice."""
    return {
        InferenceLogged: partial(traffic.on_inference_logged, ports=ports),
        FeedbackReceived: partial(traffic.on_feedback_received, ports=ports),
    }


def timer_handlers(ports: Ports) -> dict[str, Handle]:
    return {
        runs.WAIT_FOR_LABELS: partial(runs.look_for_labels, ports=ports),
        executions.END_EXECUTION: partial(executions.end_execution, ports=ports),
    }
