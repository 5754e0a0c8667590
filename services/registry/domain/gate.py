"""The gate: is a version good enough to be rolled out, and not shown worse than the present champion?"""

import math
from collections.abc import Iterator

from services.contracts.artifact import Device, Precision, best_variant
from services.contracts.events import ModelTrained
from services.contracts.training import PairedCounts, VariantReport
from services.registry.domain.facts import Check, Gate
from services.registry.domain.policy import GatePolicy


def serving_variant(trained: ModelTrained) -> VariantReport | None:
    """What a CPU serves of those that passed their quality proof, else fp32; none where there is not even that.

    Its scores are the version's, and the champion answers with it when the next one is compared.
    """
    of = {variant.precision: variant for variant in trained.variants}
    passed = [variant.precision for variant in trained.variants if variant.passed]
    return of.get(best_variant(passed, Device.CPU) or Precision.FP32)


def judge(trained: ModelTrained, champion: int | None, policy: GatePolicy) -> Gate:
    """Every check, passed or not, in a fixed order; the gate passes when all of them do.

    With a champion, a comparison against it is needed (`stale_comparison` fails without), and on no slice of the
    test rows may the version be shown worse by more than the margin. Without a champion the scores alone decide.
    """
    checks = [_variant(trained), _test_rows(trained, policy), _floor(trained, policy)]
    if champion is not None:
        fresh = _comparison(trained, champion)
        checks.append(fresh)
        if fresh.passed:
            checks.extend(_slices(trained, policy))
    return Gate(passed=all(check.passed for check in checks), champion=champion, checks=tuple(checks))


def upper_limit(counts: PairedCounts, alpha: float) -> float:
    """The one-sided upper 1 - alpha confidence limit of accuracy(candidate) - accuracy(champion).

    Found by inverting the score test for a paired difference: T. Tango, "Equivalence test and confidence interval
    for the difference in proportions for the paired-sample design", Statistics in Medicine 17 (1998) 891-908.
    1.0 when there are no rows: nothing is shown.
    """
    critical = -_normal_quantile(alpha)
    low = (counts.candidate_only - counts.champion_only) / _rows(counts) if _rows(counts) else 1.0
    high = 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(counts, middle) > -critical else (low, middle)
    return high


def _score(counts: PairedCounts, difference: float) -> float:
    """Tango's statistic for the hypothesis that the true difference is `difference`; about N(0, 1) when it is."""
    if difference >= 1.0:
        return -math.inf
    rows, gained, lost = _rows(counts), counts.candidate_only, counts.champion_only
    a = 2 * rows
    b = (2 * rows - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    only_champion = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = rows * (2 * only_champion + difference * (1 - difference))
    distance = gained - lost - rows * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _normal_quantile(share: float) -> float:
    """By bisection of the normal distribution function, to 1e-12."""
    low, high = -10.0, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < share else (low, middle)
    return (low + high) / 2


def _rows(counts: PairedCounts) -> int:
    return counts.both + counts.candidate_only + counts.champion_only + counts.neither


def _variant(trained: ModelTrained) -> Check:
    variant = serving_variant(trained)
    passed = variant is not None and variant.passed
    if variant is None:
        detail = "there is no variant that a CPU serves"
    else:
        detail = f"{variant.precision} is to be served; {variant.reason or ('proved' if passed else 'not proved')}"
    return Check(name="variant", passed=passed, detail=detail, value=float(passed), limit=1.0)


def _test_rows(trained: ModelTrained, policy: GatePolicy) -> Check:
    rows, limit = trained.metrics.test_rows, policy.minimum_test_rows
    detail = f"{rows} test rows, at least {limit} are needed"
    return Check(name="test_rows", passed=rows >= limit, detail=detail, value=rows, limit=limit)


def _floor(trained: ModelTrained, policy: GatePolicy) -> Check:
    overall = next((part for part in trained.metrics.slices if part.name == "all"), None)
    limit = trained.metrics.tfidf_macro_f1 - policy.floor_margin
    value = overall.macro_f1 if overall is not None else 0.0
    detail = (
        f"macro-F1 {value:.3f}, TF-IDF reaches {trained.metrics.tfidf_macro_f1:.3f} on the same rows"
        if overall is not None
        else "there is no score over all test rows"
    )
    return Check(name="floor", passed=overall is not None and value >= limit, detail=detail, value=value, limit=limit)


def _comparison(trained: ModelTrained, champion: int) -> Check:
    compared = trained.comparison.champion if trained.comparison is not None else None
    passed = compared == champion and any(_rows(part) for part in _parts(trained))
    if passed:
        detail = f"compared with version {champion}, which serves now"
    elif compared == champion:
        detail = f"the comparison with version {champion} has no rows"
    else:
        against = "nothing" if compared is None else f"version {compared}"
        detail = f"compared with {against}, but version {champion} serves now: retrain"
    return Check(name="stale_comparison", passed=passed, detail=detail, value=compared or 0, limit=champion)


def _slices(trained: ModelTrained, policy: GatePolicy) -> Iterator[Check]:
    for part in _parts(trained):
        if not (rows := _rows(part)):
            continue
        ours, theirs = (part.both + part.candidate_only) / rows, (part.both + part.champion_only) / rows
        upper = upper_limit(part, policy.alpha)
        detail = (
            f"accuracy {ours:.3f} against {theirs:.3f} on {rows} rows; "
            f"the difference is at most {upper:+.3f} with {1 - policy.alpha:.0%} confidence"
        )
        yield Check(
            name=f"not_worse:{part.name}",
            passed=upper >= -policy.margin,
            detail=detail,
            value=upper,
            limit=-policy.margin,
        )


def _parts(trained: ModelTrained) -> list[PairedCounts]:
    return trained.comparison.slices if trained.comparison is not None else []
