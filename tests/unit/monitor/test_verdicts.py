"""Promote, hold or roll back."""

from services.contracts.events import Verdict
from services.monitor.domain.comparisons import Tally
from services.monitor.domain.sequential import Arm, Outcomes, Pairs
from services.monitor.domain.verdicts import JudgingPolicy, judge

EQUAL = Outcomes(pairs=Pairs(both_bad=50, candidate_bad=12, champion_bad=12, neither=326))
WORSE = Outcomes(pairs=Pairs(both_bad=15, candidate_bad=22, champion_bad=3, neither=60))
FINE = Outcomes(candidate=Arm(60, 0), champion=Arm(500, 1))
FAILING = Outcomes(candidate=Arm(20, 9), champion=Arm(180, 1))


def test_a_canary_shown_safe_is_promoted() -> None:
    judgement = judge(Tally(EQUAL, FINE, FINE), requests=60, policy=JudgingPolicy(), mirrors=True)
    assert judgement.verdict is Verdict.PROMOTE
    assert "correctness shown safe: 84.5% right answers against 84.5% over 400 requests" in judgement.reason


def test_a_canary_shown_worse_is_rolled_back_at_any_number_of_requests() -> None:
    judgement = judge(Tally(WORSE, FINE, FINE), requests=3, policy=JudgingPolicy(), mirrors=True)
    assert judgement.verdict is Verdict.ROLL_BACK
    assert judgement.reason.startswith("correctness shown worse: 63.0% right answers against 82.0%")
    evidence = judgement.evidence[0]
    assert (evidence.indicator, evidence.decision, evidence.pairs) == ("correctness", "worse", 100)
    assert evidence.e_value_worse >= 1 / evidence.alpha


def test_errors_roll_back_without_any_label() -> None:
    judgement = judge(Tally(errors=FAILING), requests=20, policy=JudgingPolicy(), mirrors=False)
    assert judgement.verdict is Verdict.ROLL_BACK
    assert "errors shown worse: 45.0% errors against 0.6%" in judgement.reason


def test_no_labels_hold_where_labels_are_required() -> None:
    judgement = judge(Tally(errors=FINE, latency=FINE), requests=60, policy=JudgingPolicy(), mirrors=True)
    assert (judgement.verdict, judgement.reason) == (Verdict.HOLD, "thin evidence: no labelled feedback yet")


def test_few_requests_hold() -> None:
    judgement = judge(Tally(EQUAL, FINE, FINE), requests=29, policy=JudgingPolicy(), mirrors=True)
    assert judgement.verdict is Verdict.HOLD
    assert "fewer than 30 requests" in judgement.reason


def test_undecided_labels_hold() -> None:
    few = Outcomes(pairs=Pairs(candidate_bad=1, champion_bad=1, neither=8))
    judgement = judge(Tally(few, FINE, FINE), requests=60, policy=JudgingPolicy(), mirrors=True)
    assert (judgement.verdict, judgement.reason) == (Verdict.HOLD, "thin evidence: correctness not yet decided")


def test_errors_that_stand_above_the_champion_hold_a_correct_canary() -> None:
    shaky = Outcomes(candidate=Arm(40, 3), champion=Arm(40, 0))
    judgement = judge(Tally(EQUAL, shaky, FINE), requests=60, policy=JudgingPolicy(), mirrors=True)
    assert (judgement.verdict, judgement.reason) == (Verdict.HOLD, "errors stand above the champion's")


def test_without_required_labels_errors_and_latency_promote() -> None:
    policy = JudgingPolicy(require_labels=False)
    many = Outcomes(candidate=Arm(400, 0), champion=Arm(3600, 2))
    judgement = judge(Tally(errors=many, latency=many), requests=400, policy=policy, mirrors=False)
    assert judgement.verdict is Verdict.PROMOTE
    thin = judge(Tally(errors=FINE, latency=FINE), requests=60, policy=policy, mirrors=False)
    assert thin.verdict is Verdict.HOLD


def test_feedback_is_heeded_where_it_is_not_required() -> None:
    policy = JudgingPolicy(require_labels=False)
    many = Outcomes(candidate=Arm(400, 0), champion=Arm(3600, 2))
    few = Outcomes(pairs=Pairs(candidate_bad=1, champion_bad=0, neither=8))
    judgement = judge(Tally(few, many, many), requests=400, policy=policy, mirrors=True)
    assert judgement.verdict is Verdict.HOLD
