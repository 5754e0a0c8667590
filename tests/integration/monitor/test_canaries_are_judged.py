"""From answers and labels, in any order, to `rollout.judged`."""

import random

from services.contracts.artifact import Precision
from services.contracts.events import FeedbackReceived, RolloutJudged, SloBreached, TrainingFailed, Verdict
from services.kit.messaging.envelope import Envelope
from services.monitor.domain.deployments import DeploymentKey
from services.monitor.handlers.health import get_health
from services.monitor.handlers.ingest import on_feedback_received
from services.monitor.handlers.maintenance import MAINTENANCE_TIMER
from services.monitor.handlers.runs import on_training_failed
from services.monitor.handlers.verdicts import list_verdicts
from services.monitor.telemetry import TRAINING_FAILED
from tests.fixtures.metrics import Scraped
from tests.integration.monitor.conftest import DEPLOYMENT, Monitor

KEY = DeploymentKey("default", DEPLOYMENT)


async def pairs(monitor: Monitor, count: int, *, candidate: float, champion: float, seed: int = 1) -> None:
    """Requests answered by both versions and labelled; each version is right with the given chance. The labels of half
    of the requests arrive before their answers, and the mirrored answer before or after the other."""
    chance = random.Random(seed)
    for number in range(count):
        request = f"p-{seed}-{number}"
        luck = chance.random()
        answers = [
            monitor.record(1, request=request, label="a" if luck < champion else "b"),
            monitor.record(2, request=request, label="a" if luck < candidate else "b", mirrored=True),
        ]
        chance.shuffle(answers)
        early = number % 2 == 0
        if early:
            await monitor.feedback(request, "a")
        for answer in answers:
            await monitor.log(answer)
        if not early:
            await monitor.feedback(request, "a")


async def published(monitor: Monitor) -> list[RolloutJudged]:
    return [envelope.event for envelope in await monitor.outbox(RolloutJudged)]


async def test_a_canary_without_evidence_is_held_once(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.pass_time(3)
    await monitor.log(monitor.record(2))
    await monitor.pass_time(3)
    (held,) = await published(monitor)
    assert (held.verdict, held.requests, held.step) == (Verdict.HOLD, 0, 0)
    assert "thin evidence" in held.reason


async def test_a_bad_canary_is_rolled_back_on_labelled_pairs(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await pairs(monitor, 60, candidate=0.55, champion=0.85)
    await monitor.pass_time(1)
    judged = (await published(monitor))[-1]
    assert judged.verdict is Verdict.ROLL_BACK
    assert judged.rollout == "r-2"
    evidence = next(part for part in judged.evidence if part.indicator == "correctness")
    assert evidence.pairs == 60
    assert evidence.decision == "worse"
    assert evidence.candidate < evidence.champion
    assert evidence.e_value_worse >= 1 / evidence.alpha


async def test_evidence_names_the_variants_of_both_sides(monitor: Monitor) -> None:
    await monitor.log(monitor.record(1, request="early", variant=Precision.FP32))
    await monitor.serve(1, canary=2)
    for number in range(20):
        variant = Precision.FP16 if number % 2 else Precision.INT8
        await monitor.log(
            monitor.record(1, request=f"q-{number}"),
            monitor.record(2, request=f"q-{number}", mirrored=True, failed=True, variant=variant),
        )
    await monitor.pass_time(1)
    judged = (await published(monitor))[-1]
    assert judged.verdict is Verdict.ROLL_BACK
    for evidence in judged.evidence:
        assert evidence.candidate_variants == [Precision.FP16, Precision.INT8]
        assert evidence.champion_variants == [Precision.FP32, Precision.INT8]


async def test_a_better_canary_is_promoted_step_by_step(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await pairs(monitor, 50, candidate=0.75, champion=0.4)
    await monitor.pass_time(1)
    first = (await published(monitor))[-1]
    assert (first.verdict, first.step, first.requests) == (Verdict.PROMOTE, 0, 50)
    await monitor.serve(1, canary=2, step=1)
    await monitor.pass_time(1)
    assert (await published(monitor))[-1].verdict is Verdict.HOLD
    await pairs(monitor, 30, candidate=0.75, champion=0.4, seed=2)
    await monitor.pass_time(1)
    second = (await published(monitor))[-1]
    assert (second.verdict, second.step, second.requests) == (Verdict.PROMOTE, 1, 30)
    assert second.evidence[0].pairs == 80


async def test_a_promotion_is_published_again_while_its_requests_grow_but_not_each_time(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await pairs(monitor, 50, candidate=0.75, champion=0.4)
    await monitor.pass_time(1)
    for seed in range(2, 6):
        await pairs(monitor, 5, candidate=0.75, champion=0.4, seed=seed)
        await monitor.pass_time(0.5)
    await monitor.pass_time(3)
    promotions = [judged.requests for judged in await published(monitor) if judged.verdict is Verdict.PROMOTE]
    assert promotions[0] == 50
    assert promotions[-1] == 70
    assert len(promotions) <= 3


async def test_a_failing_canary_is_rolled_back_without_labels(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2, mirror=0.0)
    for number in range(25):
        await monitor.log(monitor.record(2, failed=number % 2 == 0), *[monitor.record(1) for _ in range(9)])
    await monitor.pass_time(1)
    judged = (await published(monitor))[-1]
    assert judged.verdict is Verdict.ROLL_BACK
    assert "errors shown worse" in judged.reason


async def test_the_order_of_arrival_does_not_change_the_tally(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await pairs(monitor, 24, candidate=0.5, champion=0.9)
    async with monitor.store.reading() as tx:
        rollout = await tx.rollout(KEY)
    assert rollout is not None
    assert rollout.tally.correctness.pairs.total == rollout.tally.errors.pairs.total == 24
    assert rollout.tally.correctness.candidate.total == rollout.tally.correctness.champion.total == 0
    assert rollout.requests == 24


async def test_answers_that_arrived_before_the_rollout_count(monitor: Monitor) -> None:
    await monitor.serve(1)
    await pairs(monitor, 20, candidate=0.5, champion=0.9)
    await monitor.serve(1, canary=2)
    async with monitor.store.reading() as tx:
        rollout = await tx.rollout(KEY)
    assert rollout is not None
    assert rollout.tally.correctness.pairs.total == 20
    assert rollout.requests == 20


async def test_after_a_rollout_nothing_is_judged(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.serve(1)
    await monitor.pass_time(2)
    assert await published(monitor) == []


async def test_the_feedback_given_last_counts_once_whenever_it_arrives(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    given_at = monitor.clock.now()
    await monitor.clock.advance(10)
    await monitor.log(monitor.record(2, request="q", label="a"))
    await monitor.feedback("q", "a")
    await monitor.feedback("q", "b", given_at=given_at)
    (health,) = await get_health(KEY, monitor.ports)
    assert (health.version, health.counts.labelled, health.counts.right) == (2, 1, 1)
    await monitor.clock.advance(1)
    await monitor.feedback("q", "b")
    (health,) = await get_health(KEY, monitor.ports)
    assert (health.counts.labelled, health.counts.right) == (1, 0)


async def test_feedback_names_an_item_early_or_late_and_by_either_name(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.feedback("q:1", "b")
    items = [{"label": "a"}, {"label": "a"}, {"label": "a"}]
    await monitor.log(monitor.record(2, request="q").model_copy(update={"items": items}))
    (health,) = await get_health(KEY, monitor.ports)
    assert (health.counts.requests, health.counts.labelled, health.counts.right) == (1, 1, 0)
    for name in ("q:0", "q:2"):
        await monitor.feedback(name, "a")
    (health,) = await get_health(KEY, monitor.ports)
    assert (health.counts.labelled, health.counts.right) == (1, 1)


async def test_a_request_whose_own_id_looks_like_an_item_is_found(monitor: Monitor) -> None:
    await monitor.serve(1)
    for name in ("order:7", "order:0"):
        await monitor.log(monitor.record(1, request=name, label="a"))
        await monitor.feedback(name, "a")
    (health,) = await get_health(KEY, monitor.ports)
    assert (health.counts.labelled, health.counts.right) == (2, 2)


async def test_verdicts_are_listed_newest_first(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.pass_time(1)
    await pairs(monitor, 60, candidate=0.5, champion=0.9)
    await monitor.pass_time(1)
    verdicts = [verdict for _, verdict in await list_verdicts(KEY, 10, monitor.ports)]
    assert [one.verdict for one in verdicts] == [Verdict.ROLL_BACK, Verdict.HOLD]
    assert verdicts[0].evidence[0].indicator == "correctness"


async def test_health_tells_latency_errors_and_accuracy(monitor: Monitor) -> None:
    await monitor.serve(1)
    records = [monitor.record(1, latency_ms=10 + number) for number in range(100)]
    await monitor.log(*records, monitor.record(1, failed=True))
    for record in records[:10]:
        await monitor.feedback(record.request, "a" if record is not records[0] else "b")
    (health,) = await get_health(KEY, monitor.ports)
    assert (health.counts.requests, health.counts.errors, health.counts.labelled) == (101, 1, 10)
    assert 55 <= health.latency_p50_ms <= 65
    assert health.accuracy == 0.9
    assert health.accuracy_ci95.low < 0.9 < health.accuracy_ci95.high


async def test_a_burning_budget_is_published_once_until_it_recovers(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.log(*[monitor.record(1, failed=number % 2 == 0) for number in range(100)])
    await monitor.pass_time(40)
    (breach,) = [envelope.event for envelope in await monitor.outbox(SloBreached)]
    assert (breach.indicator, breach.version, breach.requests) == ("errors", 1, 100)
    assert breach.burn_rate > 14.4
    await monitor.pass_time(360)
    await monitor.log(*[monitor.record(1, failed=True) for _ in range(100)])
    await monitor.pass_time(20)
    assert len(await monitor.outbox(SloBreached)) == 2


async def test_what_is_old_is_forgotten(monitor: Monitor) -> None:
    await monitor.serve(1)
    await monitor.answer(1, 50)
    await monitor.feedback("early", "a")
    await monitor.clock.advance(25 * 3600)
    await monitor.loop.run_due()
    async with monitor.store.reading() as tx:
        assert await tx.observations(KEY, {"early": 1, "q-2": 1}) == {}
        assert await tx.counts(KEY, monitor.clock.now().replace(year=2020)) == {}
        timers = await monitor.store.due_timers(monitor.clock.now().replace(year=2100), 10)
    assert [timer.kind for timer in timers] == [MAINTENANCE_TIMER]


async def test_a_failed_run_is_counted_once(monitor: Monitor, scraped: Scraped) -> None:
    failed = TrainingFailed(
        model="topics", run="run-1", dataset="d", stage="train", code="one_class", reason="one class", retryable=False
    )
    envelope: Envelope[TrainingFailed] = monitor.envelope(failed)
    series = {"tenant": envelope.tenant, "model": "topics", "code": "one_class"}
    before = scraped.value(TRAINING_FAILED, **series)
    for _ in range(2):
        await on_training_failed(envelope, monitor.ports)
        assert scraped.value(TRAINING_FAILED, **series) == before + 1


async def test_tenants_do_not_see_each_other(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.log(monitor.record(2, request="q", label="a"))
    event = FeedbackReceived(deployment=DEPLOYMENT, request="q", label="a")
    await on_feedback_received([monitor.envelope(event, tenant="other")], monitor.ports)
    (health,) = await get_health(KEY, monitor.ports)
    assert health.counts.labelled == 0
