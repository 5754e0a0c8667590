"""The events that the monitor consumes, and its timers."""

from collections.abc import Mapping
from functools import partial

from faststream.kafka import KafkaBroker

from services.contracts.events import DeploymentChanged, FeedbackReceived, InferenceLogged, TrainingFailed
from services.kit.jobs.timers import Handle
from services.kit.messaging.batch_consumer import BatchHandler
from services.kit.messaging.envelope import Envelope
from services.monitor.handlers.deployments import follow_deployment
from services.monitor.handlers.ingest import take_feedback, take_records
from services.monitor.handlers.maintenance import UPKEEP_TIMER, keep_up
from services.monitor.handlers.runs import note_failed_training
from services.monitor.handlers.verdicts import JUDGE_TIMER, judge_canary
from services.monitor.handlers.windows import WINDOW_TIMER, examine_window
from services.monitor.ports import Ports


def subscribe(broker: KafkaBroker, ports: Ports) -> None:
    """The control events, each read by a group of its own: a backlog of one delays no other."""

    @broker.subscriber(
        "deployment.changed", group_id="millrace.monitor.deployment.changed", auto_offset_reset="earliest"
    )
    async def on_deployment_changed(envelope: Envelope[DeploymentChanged]) -> None:
        await follow_deployment(envelope, ports)

    @broker.subscriber("training.failed", group_id="millrace.monitor.training.failed", auto_offset_reset="earliest")
    async def on_training_failed(envelope: Envelope[TrainingFailed]) -> None:
        await note_failed_training(envelope, ports)


def batches(ports: Ports) -> dict[type[InferenceLogged | FeedbackReceived], BatchHandler]:
    """Topics of volume, each read in batches by a reader of its own: a backlog of them delays no control event."""
    return {
        InferenceLogged: partial(take_records, ports=ports),
        FeedbackReceived: partial(take_feedback, ports=ports),
    }


def timers(ports: Ports) -> Mapping[str, Handle]:
    return {
        WINDOW_TIMER: partial(examine_window, ports=ports),
        JUDGE_TIMER: partial(judge_canary, ports=ports),
        UPKEEP_TIMER: partial(keep_up, ports=ports),
    }
