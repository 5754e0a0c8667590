"""Between the tables' rows and the domain's values."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import Evidence, Verdict
from services.contracts.tasks.feedback import Feedback
from services.monitor.domain.comparisons import ComparedVariants, Contest, Tally
from services.monitor.domain.deployments import ClosedWindow, Place, Story, Watch, Watched, WindowSeries
from services.monitor.domain.drift import DriftTest, WindowVerdict
from services.monitor.domain.observations import Answer, TimedFeedback
from services.monitor.domain.rollouts import Rollout, RolloutVerdict, Told
from services.monitor.domain.sequential import Arm, Outcomes, Pairs
from services.monitor.domain.slo import Counts
from services.monitor.domain.windows import Sample, encode_embedding, read_embedding

Values = dict[str, Any]


def of_place(place: Place) -> Values:
    return {"tenant": place.tenant, "deployment": place.deployment}


def of_watch(watch: Watch) -> Values:
    watched = watch.watched
    return {
        **of_place(watch.place),
        "model": watch.model,
        "generation": watch.generation,
        "watched": watched and {"version": watched.version, "artifact": watched.artifact.model_dump(mode="json")},
        "story": asdict(watch.story),
        "cpu_variants": {str(version): variant.value for version, variant in watch.cpu_variants.items()},
        "series": {variant.value: asdict(series) for variant, series in watch.series.items()},
        "next_window": watch.next_window,
        "told": watch.told,
    }


def to_watch(row: Any) -> Watch:
    watched = row.watched and Watched(
        version=row.watched["version"], artifact=ArtifactRef.model_validate(row.watched["artifact"])
    )
    return Watch(
        place=Place(row.tenant, row.deployment),
        model=row.model,
        generation=row.generation,
        watched=watched,
        story=Story(**row.story),
        cpu_variants={int(version): Precision(variant) for version, variant in row.cpu_variants.items()},
        series={Precision(variant): WindowSeries(**series) for variant, series in row.series.items()},
        next_window=row.next_window,
        told=row.told,
    )


def of_rollout(rollout: Rollout) -> Values:
    told = rollout.told
    return {
        **of_place(rollout.place),
        "rollout": rollout.id,
        "candidate": rollout.contest.candidate,
        "champion": rollout.contest.champion,
        "since": rollout.contest.since,
        "mirrors": rollout.mirrors,
        "step": rollout.step,
        "step_since": rollout.step_since,
        "requests": rollout.requests,
        "tally": asdict(rollout.tally),
        "variants": {side: sorted(variants) for side, variants in asdict(rollout.variants).items()},
        "story": asdict(rollout.story),
        "judging": rollout.judging,
        "told": told and {**asdict(told), "at": told.at.isoformat()},
    }


def to_rollout(row: Any) -> Rollout:
    return Rollout(
        place=Place(row.tenant, row.deployment),
        id=row.rollout,
        contest=Contest(row.candidate, row.champion, row.since),
        mirrors=row.mirrors,
        step=row.step,
        step_since=row.step_since,
        story=Story(**row.story),
        requests=row.requests,
        tally=Tally(**{name: _outcomes(value) for name, value in row.tally.items()}),
        variants=ComparedVariants(**{side: frozenset(map(Precision, some)) for side, some in row.variants.items()}),
        judging=row.judging,
        told=row.told and _told(row.told),
    )


def _outcomes(values: Values) -> Outcomes:
    return Outcomes(Pairs(**values["pairs"]), Arm(**values["candidate"]), Arm(**values["champion"]))


def _told(values: Values) -> Told:
    return Told(**{**values, "verdict": Verdict(values["verdict"]), "at": datetime.fromisoformat(values["at"])})


def of_answer(place: Place, request: str, answer: Answer) -> Values:
    """Written out: this runs once a request, and `asdict` copies what need not be copied."""
    return {
        **of_place(place),
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


def of_feedback(place: Place, item: str, judged: TimedFeedback) -> Values:
    judgement = judged.feedback.model_dump(mode="json", exclude_none=True)
    return {**of_place(place), "item": item, "judgement": judgement, "given_at": judged.at}


def to_feedback(row: Any) -> TimedFeedback:
    return TimedFeedback(Feedback.model_validate(row.judgement), row.given_at)


def of_counts(counts: Counts) -> Values:
    values = {name: getattr(counts, name) for name in ("requests", "errors", "slow", "labelled", "right")}
    return {**values, "histogram": {str(bucket): count for bucket, count in sorted(counts.histogram.items())}}


def to_counts(row: Any) -> Counts:
    histogram = {int(bucket): count for bucket, count in row.histogram.items()}
    return Counts(row.requests, row.errors, row.slow, row.labelled, row.right, histogram)


def of_sample(place: Place, window: int, position: int, sample: Sample) -> Values:
    return {
        **of_place(place),
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
        **of_place(window.place),
        "number": window.number,
        "version": window.version,
        "variant": window.variant.value,
        "rows": window.rows,
        "answered": window.answered,
        "opened": window.opened,
        "closed": window.closed,
        "verdict": window.verdict and window.verdict.value,
        "test": window.test and asdict(window.test),
    }


def to_window(row: Any) -> ClosedWindow:
    return ClosedWindow(
        place=Place(row.tenant, row.deployment),
        number=row.number,
        version=row.version,
        variant=Precision(row.variant),
        rows=row.rows,
        answered=row.answered,
        opened=row.opened,
        closed=row.closed,
        verdict=row.verdict and WindowVerdict(row.verdict),
        test=row.test and DriftTest(**row.test),
    )


def of_verdict(told: RolloutVerdict) -> Values:
    return {
        **of_place(told.place),
        "rollout": told.rollout,
        "version": told.version,
        "step": told.step,
        "verdict": told.verdict.value,
        "reason": told.reason,
        "requests": told.requests,
        "evidence": [part.model_dump(mode="json") for part in told.evidence],
        "at": told.at,
    }


def to_verdict(row: Any) -> RolloutVerdict:
    return RolloutVerdict(
        place=Place(row.tenant, row.deployment),
        rollout=row.rollout,
        version=row.version,
        step=row.step,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        requests=row.requests,
        evidence=tuple(Evidence.model_validate(part) for part in row.evidence),
        at=row.at,
    )
