"""Which handler takes which event and which timer."""

from collections.abc import Mapping
from functools import partial

from services.contracts.events import DeploymentChanged, Event, FeedbackReceived, InferenceLogged, TrainingFailed
from services.kit.envelope import Envelope
from services.kit.messaging.batch_consumer import BatchHandler
from services.kit.messaging.delivery import Subscription, on
from services.kit.timers import Handle
from services.monitor.handlers.drifting import WINDOW_TIMER, examine_window
from services.monitor.handlers.judging import JUDGE_TIMER, judge_canary
from services.monitor.handlers.taking import follow_deployment, note_failed_training, take_feedback, take_records
from services.monitor.handlers.upkeep import UPKEEP_TIMER, keep_up
from services.monitor.ports import Ports


def subscriptions(ports: Ports) -> list[Subscription]:
    """The control events."""
    return [
        on(DeploymentChanged, partial(follow_deployment, ports=ports)),
        on(TrainingFailed, partial(note_failed_training, ports=ports)),
    ]


def batches(ports: Ports) -> dict[type[InferenceLogged | FeedbackReceived], BatchHandler]:
    """Topics of volume, each read in batches by a reader of its own: a backlog of them delays no control event."""
    return {
        InferenceLogged: partial(take_records, ports=ports),
        FeedbackReceived: partial(take_feedback, ports=ports),
    }


def one_by_one(ports: Ports) -> list[Subscription]:
    """The same for a bus that knows no batches."""
    return [Subscription(event, partial(_alone, take=take)) for event, take in batches(ports).items()]


async def _alone(envelope: Envelope[Event], take: BatchHandler) -> None:
    await take([envelope])


def timers(ports: Ports) -> Mapping[str, Handle]:
    return {
        WINDOW_TIMER: partial(examine_window, ports=ports),
        JUDGE_TIMER: partial(judge_canary, ports=ports),
        UPKEEP_TIMER: partial(keep_up, ports=ports),
    }
