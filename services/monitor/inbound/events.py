"""Which handler takes which event and which timer."""

from collections.abc import Mapping, Sequence
from functools import partial

from services.contracts.events import DeploymentChanged, FeedbackReceived, InferenceLogged, TrainingFailed
from services.kit.bus.delivery import Subscription, on
from services.kit.bus.stream import HandleMany
from services.kit.envelope import Envelope
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
        on(FeedbackReceived, partial(take_feedback, ports=ports)),
        on(TrainingFailed, partial(note_failed_training, ports=ports)),
    ]


def records(ports: Ports) -> HandleMany:
    """`inference.logged`, in batches."""

    async def take(envelopes: Sequence[Envelope[InferenceLogged]]) -> None:
        await take_records(envelopes, ports)

    return take


def record_subscription(ports: Ports) -> Subscription:
    """`inference.logged` one by one, for a bus that knows no batches."""

    async def take(envelope: Envelope[InferenceLogged]) -> None:
        await take_records([envelope], ports)

    return on(InferenceLogged, take)


def timers(ports: Ports) -> Mapping[str, Handle]:
    return {
        WINDOW_TIMER: partial(examine_window, ports=ports),
        JUDGE_TIMER: partial(judge_canary, ports=ports),
        UPKEEP_TIMER: partial(keep_up, ports=ports),
    }
