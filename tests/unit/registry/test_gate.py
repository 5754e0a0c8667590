"""The gate: what passes, what is refused, and how often it errs on data like the demo's."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.artifact import Precision
from services.contracts.training import PairedCounts
from services.registry.domain.gate import judge, serving_variant, upper_limit
from services.registry.domain.policy import GatePolicy
from tests.unit.registry.scenario import counts, trained, variant

GATE = GatePolicy()


def failed(**how: object) -> set[str]:
    champion = how.pop("champion", None)
    assert champion is None or isinstance(champion, int)
    gate = judge(trained("run-1", **how), champion, GATE)  # type: ignore[arg-type]
    return {check.name for check in gate.checks if not check.passed}


def test_int8_is_served_where_it_passed_its_proof_and_fp32_where_it_did_not() -> None:
    fp32, good, bad = variant(Precision.FP32), variant(Precision.INT8), variant(Precision.INT8, passed=False)
    assert serving_variant(trained("a", variants=[fp32, good])) == good
    assert serving_variant(trained("a", variants=[fp32, bad])) == fp32
    assert serving_variant(trained("a", variants=[variant(Precision.INT4)])) == variant(Precision.INT4)
    assert serving_variant(trained("a", variants=[variant(Precision.FP16)])) is None


def test_a_smaller_variant_for_another_device_does_not_stand_for_the_version() -> None:
    fp32, fp16, bad = variant(Precision.FP32), variant(Precision.FP16), variant(Precision.INT8, passed=False)
    assert serving_variant(trained("a", variants=[fp32, bad, fp16])) == fp32


def test_a_first_version_needs_no_comparison() -> None:
    assert failed() == set()


def test_a_variant_without_proof_is_refused() -> None:
    assert failed(variants=[variant(Precision.FP32, passed=False)]) == {"variant"}
    assert failed(variants=[variant(Precision.FP16)]) == {"variant"}


def test_too_few_test_rows_prove_nothing() -> None:
    assert failed(test_rows=99) == {"test_rows"}


def test_a_model_below_tf_idf_by_more_than_the_margin_is_refused() -> None:
    assert failed(macro_f1=0.745, tfidf=0.77) == set()
    assert failed(macro_f1=0.735, tfidf=0.77) == {"floor"}


def test_with_a_champion_a_comparison_against_it_is_needed() -> None:
    assert failed(champion=2) == {"stale_comparison"}
    assert failed(champion=2, against=1) == {"stale_comparison"}
    assert failed(champion=2, against=2) == set()
    assert failed(champion=2, against=2, slices=[counts(both=0, gained=0, lost=0, neither=0)]) == {"stale_comparison"}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "compared with nothing, but version 2 serves now: retrain"),
        ({"against": 1}, "compared with version 1, but version 2 serves now: retrain"),
        ({"against": 2}, "compared with version 2, which serves now"),
        (
            {"against": 2, "slices": [counts(both=0, gained=0, lost=0, neither=0)]},
            "the comparison with version 2 has no rows",
        ),
    ],
)
def test_what_a_candidate_was_compared_with_is_named(how: dict[str, Any], words: str) -> None:
    gate = judge(trained("run-1", **how), 2, GATE)
    assert next(check.detail for check in gate.checks if check.name == "stale_comparison") == words


def test_being_shown_worse_on_one_slice_is_enough_to_be_refused() -> None:
    worse = counts("base", both=200, gained=10, lost=80, neither=10)
    assert failed(champion=1, against=1, slices=[counts(), worse]) == {"not_worse:base"}


def test_a_check_tells_its_value_and_its_limit() -> None:
    gate = judge(trained("run-1", against=1), 1, GATE)
    check = next(check for check in gate.checks if check.name == "not_worse:all")
    assert check.limit == -GATE.margin
    assert 0 < check.value < 0.05


def pairs(gained: int, lost: int, rows: int) -> PairedCounts:
    return PairedCounts(name="all", both=rows - gained - lost, candidate_only=gained, champion_only=lost, neither=0)


def test_published_examples_of_the_score_interval() -> None:
    # Tango 1998, section 6.1: soft contact lenses, n = 44, 0 against 1, 90%: lower limit -0.096.
    assert -upper_limit(pairs(1, 0, 44), 0.05) == pytest.approx(-0.096, abs=0.001)
    # Section 6.2: sleeping difficulties, n = 32, 9 against 3, 95%: -0.027 to 0.390.
    assert upper_limit(pairs(9, 3, 32), 0.025) == pytest.approx(0.390, abs=0.001)
    assert -upper_limit(pairs(3, 9, 32), 0.025) == pytest.approx(-0.027, abs=0.001)


@pytest.mark.parametrize(("gained", "lost", "rows"), [(0, 0, 0), (10, 0, 10), (100, 0, 100)])
def test_without_a_loss_or_without_rows_nothing_limits_the_difference(gained: int, lost: int, rows: int) -> None:
    assert upper_limit(pairs(gained, lost, rows), 0.05) == pytest.approx(1.0)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 400))
def test_the_upper_limit_lies_above_what_was_seen_and_falls_with_every_loss(gained: int, lost: int, same: int) -> None:
    rows = gained + lost + same
    limit = upper_limit(pairs(gained, lost, rows), 0.05)
    assert (gained - lost) / rows < limit <= 1
    assert upper_limit(pairs(gained, lost + 1, rows), 0.05) < limit


def drawn(rng: random.Random, rows: int, champion: float, candidate: float, both_wrong: float) -> PairedCounts:
    """Pairs with the two accuracies and the given share that neither gets right."""
    gained = 1 - champion - both_wrong
    lost = 1 - candidate - both_wrong
    kinds = rng.choices(("g", "l", "n", "b"), (gained, lost, both_wrong, champion - lost), k=rows)
    return PairedCounts(
        name="all",
        both=kinds.count("b"),
        candidate_only=kinds.count("g"),
        champion_only=kinds.count("l"),
        neither=kinds.count("n"),
    )


def refused(rng: random.Random, rows: int, champion: float, candidate: float, both_wrong: float, times: int) -> float:
    """The share of runs in which the slice alone makes the gate refuse."""
    parts = (drawn(rng, rows, champion, candidate, both_wrong) for _ in range(times))
    return sum(upper_limit(part, GATE.alpha) < -GATE.margin for part in parts) / times


@pytest.mark.parametrize("rows", [300, 500])
def test_a_loss_of_1_4_points_on_the_old_test_nearly_always_passes(rows: int) -> None:
    assert refused(random.Random(1), rows, 0.836, 0.822, 0.11, times=1000) <= 0.01


@pytest.mark.parametrize("rows", [300, 500])
def test_a_model_trained_on_spoiled_labels_is_nearly_always_refused(rows: int) -> None:
    assert refused(random.Random(2), rows, 0.836, 0.659, 0.11, times=1000) >= 0.985


@pytest.mark.parametrize("rows", [100, 300, 500])
def test_at_the_margin_itself_no_more_than_alpha_are_refused(rows: int) -> None:
    assert refused(random.Random(3), rows, 0.836, 0.836 - GATE.margin, 0.11, times=2000) <= GATE.alpha + 0.015
