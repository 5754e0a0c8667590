"""What requests add to a comparison, whatever the order in which answers and feedback arrive."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.artifact import Precision
from services.contracts.tasks import TASKS
from services.contracts.tasks.feedback import Feedback
from services.monitor.domain.comparisons import (
    CanaryComparison,
    ComparedVariants,
    Tally,
    contribution,
    tally_change,
    total,
)
from services.monitor.domain.observations import Answer, Observation, TimedFeedback, likeness, quality
from services.monitor.domain.sequential import Arm, Outcomes, Pairs

START = datetime(2026, 11, 1, tzinfo=UTC)
COMPARISON = CanaryComparison(candidate=2, champion=1, since=START)


def answer(version: int, *, mirrored: bool = False, ok: bool = True, label: str = "a", slow: bool = False) -> Answer:
    at = START + timedelta(seconds=1)
    answers = (label,) if ok else ()
    return Answer(version, mirrored, at, ok=ok, slow=slow, task="classification", answers=answers)


def timed(seconds: int = 0, **judgement: Any) -> TimedFeedback:
    return TimedFeedback(Feedback(**judgement), START + timedelta(seconds=seconds))


def extended(observation: Observation, part: Answer | TimedFeedback) -> Observation:
    return observation.with_feedback(0, part) if isinstance(part, TimedFeedback) else observation.with_answer(part)


def tally_of(observation: Observation) -> Tally:
    return contribution(observation, COMPARISON, TASKS)


def test_a_request_answered_by_both_is_a_pair_and_by_one_an_arm() -> None:
    both = (
        Observation()
        .with_answer(answer(1, label="a"))
        .with_answer(answer(2, mirrored=True, label="b"))
        .with_feedback(0, timed(label="a"))
    )
    lock = Observation().with_answer(answer(2, label="b")).with_feedback(0, timed(label="a"))
    assert tally_of(both).correctness == Outcomes(pairs=Pairs(candidate_bad=1))
    assert tally_of(both).errors == Outcomes(pairs=Pairs(neither=1))
    assert tally_of(lock).correctness == Outcomes(candidate=Arm(1, 1))


@pytest.mark.parametrize(
    ("champion", "candidate", "outcome"),
    [
        ("a", "a", Pairs(neither=1)),
        ("a", "b", Pairs(candidate_bad=1)),
        ("b", "a", Pairs(champion_bad=1)),
        ("b", "c", Pairs(both_bad=1)),
    ],
)
def test_a_labelled_pair_counts_against_whoever_was_wrong(champion: str, candidate: str, outcome: Pairs) -> None:
    answered = Observation().with_answer(answer(1, label=champion)).with_answer(answer(2, label=candidate))
    assert tally_of(answered.with_feedback(0, timed(label="a"))).correctness == Outcomes(pairs=outcome)


@pytest.mark.parametrize(
    ("champion", "candidate", "outcome"),
    [
        (True, True, Pairs(neither=1)),
        (True, False, Pairs(candidate_bad=1)),
        (False, True, Pairs(champion_bad=1)),
        (False, False, Pairs(both_bad=1)),
    ],
)
def test_a_pair_counts_the_errors_of_either_side(champion: bool, candidate: bool, outcome: Pairs) -> None:
    answered = Observation().with_answer(answer(1, ok=champion)).with_answer(answer(2, ok=candidate))
    assert tally_of(answered).errors == Outcomes(pairs=outcome)


def test_an_answer_of_half_the_quality_counts_as_right_in_a_pair_and_alone() -> None:
    alone = Observation().with_answer(answer(2)).with_feedback(0, timed(score=0.5))
    assert tally_of(alone).correctness == Outcomes(candidate=Arm(1, 0))
    assert tally_of(alone.with_answer(answer(1))).correctness == Outcomes(pairs=Pairs(neither=1))


def test_the_quality_of_a_request_is_the_mean_over_its_judged_items() -> None:
    several = replace(answer(1), answers=("a", "a", "b", "a"))
    observation = Observation().with_answer(several)
    for item in range(3):
        observation = observation.with_feedback(item, timed(label="a"))
    assert quality(several, observation, TASKS) == pytest.approx(2 / 3)
    assert quality(several, Observation(), TASKS) is None


def test_likeness_is_the_mean_over_the_items_that_both_answered() -> None:
    left, right = replace(answer(1), answers=("a", "b", "b")), replace(answer(2), answers=("a", "a"))
    assert likeness(left, right, TASKS) == 0.5
    assert likeness(left, replace(right, task="embedding"), TASKS) is None
    assert likeness(left, replace(right, answers=()), TASKS) is None


def test_a_mirrored_answer_counts_only_beside_its_twin() -> None:
    lonely = Observation().with_answer(answer(2, mirrored=True)).with_feedback(0, timed(label="a"))
    assert tally_of(lonely) == Tally()


def test_a_failed_answer_is_an_error_and_no_wrong_answer() -> None:
    observation = (
        Observation()
        .with_answer(answer(1))
        .with_answer(answer(2, mirrored=True, ok=False))
        .with_feedback(0, timed(label="a"))
    )
    tally = tally_of(observation)
    assert tally.errors == Outcomes(pairs=Pairs(candidate_bad=1))
    assert tally.correctness == Outcomes()


def test_latency_is_compared_on_what_clients_saw() -> None:
    observation = Observation().with_answer(answer(1, slow=True)).with_answer(answer(2, mirrored=True, slow=True))
    assert tally_of(observation).latency == Outcomes(champion=Arm(1, 1))


def test_answers_from_before_the_comparison_do_not_count() -> None:
    late = CanaryComparison(candidate=2, champion=1, since=START + timedelta(hours=1))
    assert contribution(Observation().with_answer(answer(1)).with_feedback(0, timed(label="a")), late, TASKS) == Tally()


def test_the_latest_feedback_by_its_own_time_and_the_first_answer_count() -> None:
    observation = (
        Observation()
        .with_answer(answer(2, label="a"))
        .with_answer(answer(2, label="b"))
        .with_feedback(0, timed(label="a"))
        .with_feedback(0, timed(-1, label="b"))
    )
    assert observation.feedback[0].feedback.label == "a"
    assert tally_of(observation).correctness == Outcomes(candidate=Arm(1, 0))


PARTS = st.lists(
    st.one_of(
        st.builds(
            answer,
            version=st.integers(1, 3),
            mirrored=st.booleans(),
            ok=st.booleans(),
            label=st.sampled_from("ab"),
            slow=st.booleans(),
        ),
        st.builds(timed, st.integers(0, 3), label=st.sampled_from("ab")),
    ),
    max_size=8,
)


@given(PARTS)
def test_the_changes_add_up_to_the_contribution_of_the_last_observation(parts: list[Answer | TimedFeedback]) -> None:
    observation, steps = Observation(), []
    for part in parts:
        after = extended(observation, part)
        steps.append(tally_change(observation, after, COMPARISON, TASKS))
        observation = after
    assert total(steps) == tally_of(observation)


@given(PARTS)
def test_repetitions_change_nothing(parts: list[Answer | TimedFeedback]) -> None:
    observation = Observation()
    for part in parts:
        observation = extended(observation, part)
    again = observation
    for part in parts:
        again = extended(again, part)
    assert tally_change(observation, again, COMPARISON, TASKS) == Tally()


@given(st.permutations([timed(0, label="a"), timed(1, label="b"), timed(1, label="a"), timed(2, rating=5)]))
def test_whatever_the_order_of_arrival_the_same_feedback_counts(order: list[TimedFeedback]) -> None:
    observation = Observation()
    for one in order:
        observation = observation.with_feedback(0, one)
    assert observation.feedback[0] == timed(2, rating=5)


def test_a_request_of_several_items_is_one_pair_and_the_better_version_of_it_counts() -> None:
    def several(version: int, *labels: str) -> Answer:
        at = START + timedelta(seconds=1)
        return Answer(version, version == 2, at, ok=True, slow=False, task="classification", answers=labels)

    observation = Observation().with_answer(several(1, "a", "a", "b")).with_answer(several(2, "a", "b", "b"))
    for item in range(3):
        observation = observation.with_feedback(item, timed(label="a"))
    assert tally_of(observation).correctness == Outcomes(pairs=Pairs(candidate_bad=1))


def test_the_variants_of_both_versions_are_those_that_answered_since_the_comparison_began() -> None:
    before = replace(answer(2), variant=Precision.FP32, at=START - timedelta(seconds=1))
    answers = [
        before,
        replace(answer(1), variant=Precision.INT8),
        replace(answer(2), variant=Precision.FP16),
        replace(answer(3), variant=Precision.INT4),
        answer(1),
    ]
    first = ComparedVariants().with_answers(answers, COMPARISON)
    assert first == ComparedVariants(frozenset({Precision.FP16}), frozenset({Precision.INT8}))
    later = first.with_answers([replace(answer(2), variant=Precision.INT8)], COMPARISON)
    assert later.candidate == {Precision.FP16, Precision.INT8}
    assert later.champion == {Precision.INT8}


def test_a_grade_is_about_the_answer_that_its_sender_saw() -> None:
    observation = (
        Observation().with_answer(answer(1)).with_answer(answer(2, mirrored=True)).with_feedback(0, timed(rating=1))
    )
    assert tally_of(observation).correctness == Outcomes(champion=Arm(1, 1))
