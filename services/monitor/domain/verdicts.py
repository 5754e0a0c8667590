"""From indicators to one word about a canary: promote, hold or roll back. Thin evidence holds."""

from dataclasses import dataclass
from typing import Final, Literal

from services.contracts.events import Evidence, Verdict
from services.monitor.domain.comparisons import UNKNOWN_VARIANTS, ComparedVariants, Tally
from services.monitor.domain.sequential import Decision, Limits, SequentialResult, compare

IndicatorName = Literal["correctness", "errors", "latency"]

_COUNTED: Final[dict[IndicatorName, str]] = {
    "correctness": "right answers",
    "errors": "errors",
    "latency": "slow answers",
}

_GUARDS: Final[tuple[IndicatorName, ...]] = ("errors", "latency")


@dataclass(frozen=True)
class JudgingPolicy:
    """What a canary must show.

    With `require_labels` only labelled feedback promotes: correctness must be shown safe, while errors and latency are
    guards that must neither be shown worse nor stand above the champion by more than their margin so far. Without it
    a canary with no feedback at all is promoted once both errors and latency are shown safe; as soon as feedback
    exists it is judged as if labels were required. Any indicator shown worse rolls back, at any number of requests:
    its test is valid then, and waiting costs clients.

    Each indicator errs with probability at most its `alpha`, so a candidate as good as its champion is rolled back with
    probability at most the three together.
    """

    minimum_requests: int = 30
    """The candidate's requests in a step, mirrored ones included, before it can be promoted."""
    require_labels: bool = True
    correctness: Limits = Limits(tolerance=0.0, margin=0.08)
    errors: Limits = Limits(tolerance=0.01, margin=0.05)
    latency: Limits = Limits(tolerance=0.05, margin=0.10)
    mirrored_share: float = 0.8
    """Weight of the pairs in a rollout that mirrors requests; without mirroring there are none, and it is 0."""


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...]


def judge(
    tally: Tally,
    *,
    requests: int,
    policy: JudgingPolicy,
    mirrors: bool,
    variants: ComparedVariants = UNKNOWN_VARIANTS,
) -> Judgement:
    """Weigh the tally of a rollout. `requests` are the candidate's in this step; the evidence names the `variants`."""
    paired = policy.mirrored_share if mirrors else 0.0
    results: dict[IndicatorName, SequentialResult] = {
        "correctness": compare(tally.correctness, policy.correctness, paired_share=paired),
        "errors": compare(tally.errors, policy.errors, paired_share=paired),
        "latency": compare(tally.latency, policy.latency, paired_share=0.0),
    }
    verdict, reason = _weigh(results, requests, policy)
    return Judgement(verdict, reason, tuple(evidence_of(name, result, variants) for name, result in results.items()))


def _weigh(results: dict[IndicatorName, SequentialResult], requests: int, policy: JudgingPolicy) -> tuple[Verdict, str]:
    worse = [name for name, result in results.items() if result.decision is Decision.WORSE]
    if worse:
        return Verdict.ROLL_BACK, "; ".join(_statement(name, results[name], "shown worse") for name in worse)
    if requests < policy.minimum_requests:
        return Verdict.HOLD, f"thin evidence: fewer than {policy.minimum_requests} requests in this step"
    labelled = results["correctness"].outcomes.observed > 0
    needed: tuple[IndicatorName, ...] = ("correctness",) if labelled or policy.require_labels else _GUARDS
    missing = [name for name in needed if results[name].decision is not Decision.SAFE]
    if missing:
        return Verdict.HOLD, "; ".join(_missing(name, results[name]) for name in missing)
    above = [name for name in _GUARDS if _stands_above(results[name])]
    if above:
        return Verdict.HOLD, " and ".join(f"{_COUNTED[name]} stand above the champion's" for name in above)
    return Verdict.PROMOTE, "; ".join(_statement(name, results[name], "shown safe") for name in needed)


def _stands_above(result: SequentialResult) -> bool:
    if result.decision is Decision.SAFE:
        return False
    return result.outcomes.candidate_rate > result.outcomes.champion_rate + result.limits.margin


def _missing(name: IndicatorName, result: SequentialResult) -> str:
    if not result.outcomes.observed:
        return "thin evidence: no labelled feedback yet" if name == "correctness" else f"thin evidence: no {name} yet"
    return f"thin evidence: {name} not yet decided"


def _statement(name: IndicatorName, result: SequentialResult, what: str) -> str:
    evidence = evidence_of(name, result)
    return (
        f"{name} {what}: {evidence.candidate:.1%} {_COUNTED[name]} against {evidence.champion:.1%} "
        f"over {evidence.pairs} requests"
    )


def evidence_of(
    name: IndicatorName, result: SequentialResult, variants: ComparedVariants = UNKNOWN_VARIANTS
) -> Evidence:
    """In the words of the contract: rates of right answers for correctness, of bad ones for the others."""
    outcomes = result.outcomes
    candidate, champion = outcomes.candidate_rate, outcomes.champion_rate
    if name == "correctness":
        candidate = 1 - candidate if outcomes.observed else 0.0
        champion = 1 - champion if outcomes.pairs.total + outcomes.champion.total else 0.0
    return Evidence(
        indicator=name,
        pairs=outcomes.observed,
        candidate=candidate,
        champion=champion,
        candidate_variants=sorted(variants.candidate),
        champion_variants=sorted(variants.champion),
        e_value_worse=result.e_worse,
        e_value_safe=result.e_safe,
        alpha=result.limits.alpha,
        decision=result.decision.value,
    )
