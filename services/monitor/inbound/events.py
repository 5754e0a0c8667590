"""The events that the monitor consumes, and its timers."""

from collections.abc import Mapping
from functools import partial

from faststream.kafka import KafkaBroker

from services.contracts.events import DeploymentChanged, FeedbackReceived, InferenceLogged, TrainingFailed
from services.kit.jobs.timers import Handle
from services.kit.messaging.batch_consumer import BatchHandler
from services.kit.messaging.envelope import Envelope
from services.monitor.handlers import deployments, ingest, maintenance, runs, verdicts, windows
from services.monitor.ports import Ports


def subscribe(broker: KafkaBroker, ports: Ports) -> None:
    """The control events, each read by a group of its own: a backlog of one delays no other."""

    @broker.subscriber(
        "deployment.changed", group_id="millrace.monitor.deployment.changed", auto_offset_reset="earliest"
    )
    async def on_deployment_changed(envelope: Envelope[DeploymentChanged]) -> None:
        await deployments.on_deployment_changed(envelope, ports)

    @broker.subscriber("training.failed", group_id="millrace.monitor.training.failed", auto_offset_reset="earliest")
    async def on_training_failed(envelope: Envelope[TrainingFailed]) -> None:
        await runs.on_training_failed(envelope, ports)


def batches(ports: Ports) -> dict[type[InferenceLogged | FeedbackReceived], BatchHandler]:
    """Topics of volume, each read in batches by a consumer of its own: a backlog of them delays no control event."""
    return {
        InferenceLogged: partial(ingest.on_inference_logged, ports=ports),
        FeedbackReceived: partial(ingest.on_feedback_received, ports=ports),
    }


def timers(ports: Ports) -> Mapping[str, Handle]:
    return {
        windows.WINDOW_TIMER: partial(windows.run_drift_test, ports=ports),
        verdicts.JUDGE_TIMER: partial(verdicts.judge_canary, ports=ports),
        maintenance.MAINTENANCE_TIMER: partial(maintenance.run_maintenance, ports=ports),
    }
