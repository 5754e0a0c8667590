"""Which judgements of a rollout are published."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.contracts.events import Verdict
from services.monitor.domain.comparisons import CanaryComparison
from services.monitor.domain.deployments import DeploymentKey, EventContext
from services.monitor.domain.rollouts import LastVerdict, Rollout, should_publish
from services.monitor.domain.verdicts import Judgement

START = datetime(2026, 11, 1, tzinfo=UTC)
REPEAT_SECONDS = 2.0
ROLLOUT = Rollout(
    key=DeploymentKey("default", "topics"),
    id="r-2",
    comparison=CanaryComparison(candidate=2, champion=1, since=START),
    mirrors=True,
    step=1,
    step_since=START,
    context=EventContext("e-1", "w-1", {}),
    requests=50,
)


def published(verdict: Verdict, reason: str = "why", *, step: int = 1, requests: int = 50) -> Rollout:
    """The rollout after this verdict was published."""
    return replace(ROLLOUT, last_verdict=LastVerdict(step, verdict, reason, requests, START))


@pytest.mark.parametrize("verdict", Verdict)
def test_the_first_verdict_of_a_rollout_and_of_a_step_is_published(verdict: Verdict) -> None:
    judgement = Judgement(verdict, "why", ())
    assert should_publish(ROLLOUT, judgement, START, REPEAT_SECONDS)
    assert should_publish(published(verdict, step=0), judgement, START, REPEAT_SECONDS)
    assert not should_publish(published(verdict), judgement, START, REPEAT_SECONDS)


def test_another_verdict_and_another_reason_to_hold_are_published() -> None:
    held = published(Verdict.HOLD, "no labels")
    assert should_publish(held, Judgement(Verdict.PROMOTE, "no labels", ()), START, REPEAT_SECONDS)
    assert should_publish(held, Judgement(Verdict.HOLD, "few requests", ()), START, REPEAT_SECONDS)
    assert not should_publish(held, Judgement(Verdict.HOLD, "no labels", ()), START, REPEAT_SECONDS)


def test_a_rollback_is_published_once_whatever_more_is_known() -> None:
    later = START + timedelta(hours=1)
    rolled_back = published(Verdict.ROLL_BACK, "errors", requests=10)
    assert not should_publish(rolled_back, Judgement(Verdict.ROLL_BACK, "latency", ()), later, REPEAT_SECONDS)


@pytest.mark.parametrize(
    ("requests", "seconds", "expected"), [(49, 2.0, True), (49, 1.9, False), (50, 60.0, False), (49, 60.0, True)]
)
def test_a_promotion_is_repeated_after_a_while_when_its_requests_have_grown(
    requests: int, seconds: float, expected: bool
) -> None:
    promoted = published(Verdict.PROMOTE, requests=requests)
    at = START + timedelta(seconds=seconds)
    assert should_publish(promoted, Judgement(Verdict.PROMOTE, "other numbers", ()), at, REPEAT_SECONDS) is expected
