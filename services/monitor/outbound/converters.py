"""Between the tables' rows and the domain's values."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import Evidence, Verdict
from services.contracts.tasks.feedback import Feedback
from services.monitor.domain.comparisons import CanaryComparison, ComparedVariants, Tally
from services.monitor.domain.deployments import (
    ClosedWindow,
    DeploymentKey,
    EventContext,
    PrimaryVersion,
    Watch,
    WindowSeries,
)
from services.monitor.domain.drift import DriftTest, WindowVerdict
from services.monitor.domain.observations import Answer, TimedFeedback
from services.monitor.domain.rollouts import LastVerdict, Rollout, RolloutVerdict
from services.monitor.domain.sequential import Arm, Outcomes, Pairs
from services.monitor.domain.slo import Counts
from services.monitor.domain.windows import Sample, encode_embedding, read_embedding

Values = dict[str, Any]


def key_columns(key: DeploymentKey) -> Values:
    return {"tenant": key.tenant, "deployment": key.deployment}


def of_watch(watch: Watch) -> Values:
    primary = watch.primary
    return {
        **key_columns(watch.key),
        "model": watch.model,
        "generation": watch.generation,
        "primary_version": primary
        and {"version": primary.version, "artifact": primary.artifact.model_dump(mode="json")},
        "context": asdict(watch.context),
        "cpu_variants": {str(version): variant.value for version, variant in watch.cpu_variants.items()},
        "series": {variant.value: asdict(series) for variant, series in watch.series.items()},
        "next_window": watch.next_window,
        "drift_published": watch.drift_published,
    }


def to_watch(row: Any) -> Watch:
    primary = row.primary_version and PrimaryVersion(
        version=row.primary_version["version"], artifact=ArtifactRef.model_validate(row.primary_version["artifact"])
    )
    return Watch(
        key=DeploymentKey(row.tenant, row.deployment),
        model=row.model,
        generation=row.generation,
        primary=primary,
        context=EventContext(**row.context),
        cpu_variants={int(version): Precision(variant) for version, variant in row.cpu_variants.items()},
        series={Precision(variant): WindowSeries(**series) for variant, series in row.series.items()},
        next_window=row.next_window,
        drift_published=row.drift_published,
    )


def of_rollout(rollout: Rollout) -> Values:
    last = rollout.last_verdict
    return {
        **key_columns(rollout.key),
        "rollout": rollout.id,
        "candidate": rollout.comparison.candidate,
        "champion": rollout.comparison.champion,
        "since": rollout.comparison.since,
        "mirrors": rollout.mirrors,
        "step": rollout.step,
        "step_since": rollout.step_since,
        "requests": rollout.requests,
        "tally": asdict(rollout.tally),
        "variants": {side: sorted(variants) for side, variants in asdict(rollout.variants).items()},
        "context": asdict(rollout.context),
        "judging": rollout.judging,
        "last_verdict": last and {**asdict(last), "at": last.at.isoformat()},
    }


def to_rollout(row: Any) -> Rollout:
    return Rollout(
        key=DeploymentKey(row.tenant, row.deployment),
        id=row.rollout,
        comparison=CanaryComparison(row.candidate, row.champion, row.since),
        mirrors=row.mirrors,
        step=row.step,
        step_since=row.step_since,
        context=EventContext(**row.context),
        requests=row.requests,
        tally=Tally(**{name: _outcomes(value) for name, value in row.tally.items()}),
        variants=ComparedVariants(**{side: frozenset(map(Precision, some)) for side, some in row.variants.items()}),
        judging=row.judging,
        last_verdict=row.last_verdict and _last_verdict(row.last_verdict),
    )


def _outcomes(values: Values) -> Outcomes:
    return Outcomes(Pairs(**values["pairs"]), Arm(**values["candidate"]), Arm(**values["champion"]))


def _last_verdict(values: Values) -> LastVerdict:
    return LastVerdict(**{**values, "verdict": Verdict(values["verdict"]), "at": datetime.fromisoformat(values["at"])})


def of_answer(key: DeploymentKey, request: str, answer: Answer) -> Values:
    """Written out: this runs once a request, and `asdict` copies what need not be copied."""
    return {
        **key_columns(key),
        "request": request,
        "version": answer.version,
        "mirrored": answer.mirrored,
        "at": answer.at,
        "ok": answer.ok,
        "slow": answer.slow,
        "task": answer.task,
        "variant": answer.variant and answer.variant.value,
        "answers": list(answer.answers),
    }


def to_answer(row: Any) -> Answer:
    variant = row.variant and Precision(row.variant)
    return Answer(row.version, row.mirrored, row.at, row.ok, row.slow, row.task, variant, tuple(row.answers))


def of_feedback(key: DeploymentKey, item: str, feedback: TimedFeedback) -> Values:
    judgement = feedback.feedback.model_dump(mode="json", exclude_none=True)
    return {**key_columns(key), "item": item, "judgement": judgement, "given_at": feedback.at}


def to_feedback(row: Any) -> TimedFeedback:
    return TimedFeedback(Feedback.model_validate(row.judgement), row.given_at)


def of_counts(counts: Counts) -> Values:
    values = {name: getattr(counts, name) for name in ("requests", "errors", "slow", "labelled", "right")}
    return {**values, "histogram": {str(bucket): count for bucket, count in sorted(counts.histogram.items())}}


def to_counts(row: Any) -> Counts:
    histogram = {int(bucket): count for bucket, count in row.histogram.items()}
    return Counts(row.requests, row.errors, row.slow, row.labelled, row.right, histogram)


def of_sample(key: DeploymentKey, window: int, position: int, sample: Sample) -> Values:
    return {
        **key_columns(key),
        "window": window,
        "position": position,
        "request": sample.request,
        "at": sample.at,
        "text_key": sample.text_key,
        "embedding": encode_embedding(sample.embedding_D),
    }


def to_sample(row: Any) -> Sample:
    return Sample(row.request, row.at, read_embedding(row.embedding), row.text_key)


def of_window(window: ClosedWindow) -> Values:
    return {
        **key_columns(window.key),
        "number": window.number,
        "version": window.version,
        "variant": window.variant.value,
        "rows": window.rows,
        "answered": window.answered,
        "opened": window.opened,
        "closed": window.closed,
        "verdict": window.verdict and window.verdict.value,
        "test": window.test and asdict(window.test),
        "reason": window.reason,
    }


def to_window(row: Any) -> ClosedWindow:
    return ClosedWindow(
        key=DeploymentKey(row.tenant, row.deployment),
        number=row.number,
        version=row.version,
        variant=Precision(row.variant),
        rows=row.rows,
        answered=row.answered,
        opened=row.opened,
        closed=row.closed,
        verdict=row.verdict and WindowVerdict(row.verdict),
        test=row.test and DriftTest(**row.test),
        reason=row.reason,
    )


def of_verdict(verdict: RolloutVerdict) -> Values:
    return {
        **key_columns(verdict.key),
        "rollout": verdict.rollout,
        "version": verdict.version,
        "step": verdict.step,
        "verdict": verdict.verdict.value,
        "reason": verdict.reason,
        "requests": verdict.requests,
        "evidence": [part.model_dump(mode="json") for part in verdict.evidence],
        "at": verdict.at,
    }


def to_verdict(row: Any) -> RolloutVerdict:
    return RolloutVerdict(
        key=DeploymentKey(row.tenant, row.deployment),
        rollout=row.rollout,
        version=row.version,
        step=row.step,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        requests=row.requests,
        evidence=tuple(Evidence.model_validate(part) for part in row.evidence),
        at=row.at,
    )
