"""What a batch of inference records or feedback changes: answers, minute counts, windows' arrivals, the tally."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from services.contracts.tasks import Tasks
from services.contracts.tasks.records import InferenceRecord, Source
from services.monitor.domain.comparisons import CanaryComparison, Tally, tally_change
from services.monitor.domain.deployments import Watch
from services.monitor.domain.observations import HALF, Answer, Observation, TimedFeedback, likeness, quality
from services.monitor.domain.slo import Counts, bucket_of
from services.monitor.domain.windows import Arrival, Sample, decode_embedding, text_key

Minute = tuple[int, datetime]
COUNTED: Final = frozenset({Source.LIVE, Source.MIRROR})
"""Batches, requests by Kafka and probes say nothing of what clients at the endpoints get."""


@dataclass
class ObservationBatch:
    """Records or feedback of one deployment. `observations` are those from before, and are kept up to date."""

    observations: dict[str, Observation]
    comparison: CanaryComparison | None
    watch: Watch | None
    """Says whose inputs are tested for drift, and which variant answered where a record does not."""
    slow_ms: float
    now: datetime
    tasks: Tasks
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    counts: dict[Minute, Counts] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    tally: Tally = Tally()
    likenesses: list[float] = field(default_factory=list)
    """Of each version's answer that came beside another's."""
    qualities: list[tuple[str, float]] = field(default_factory=list)
    """With the metric of the task."""
    repeated: int = 0
    unreadable: int = 0

    def add_record(self, record: InferenceRecord, task: str) -> None:
        """A version's second answer to a request is a repetition and changes nothing; nor does what is not live."""
        if record.source not in COUNTED:
            return
        answer = self._answer(record, task)
        before = self.observations.get(record.request, Observation())
        after = before.with_answer(answer)
        if after is before:
            self.repeated += 1
            return
        self.answers.append((record.request, answer))
        self._update(record.request, before, after)
        self.likenesses += [
            share for other in before.answers if (share := likeness(other, answer, self.tasks)) is not None
        ]
        if not answer.mirrored:
            self._count(answer, _served(answer, record.latency_ms))
        self._count_quality(answer, before, after)
        if self._is_watched(answer) and answer.variant is not None:
            self.arrivals.append(Arrival(record.request, answer.variant, self._sample(record, answer.at)))

    def add_feedback(self, request: str, item: int, feedback: TimedFeedback) -> bool:
        """False when later feedback on the item is known already."""
        before = self.observations.get(request, Observation())
        after = before.with_feedback(item, feedback)
        if after is before:
            return False
        self._update(request, before, after)
        for answer in after.answers:
            self._count_quality(answer, before, after)
        return True

    def has_answer(self, request: str) -> bool:
        return bool(self.observations.get(request, Observation()).answers)

    def _update(self, request: str, before: Observation, after: Observation) -> None:
        self.observations[request] = after
        if self.comparison is not None:
            self.tally += tally_change(before, after, self.comparison, self.tasks)

    def _count_quality(self, answer: Answer, before: Observation, after: Observation) -> None:
        """Counts the answer's quality by the observation after, in place of what was counted by the one before."""
        old = quality(answer, before, self.tasks) if answer in before.answers else None
        new = quality(answer, after, self.tasks)
        if new == old or new is None:
            return
        task = self.tasks.named(answer.task)
        self.qualities.append((task.metric.name, new))
        right = int(new >= HALF) - (int(old >= HALF) if old is not None else 0)
        self._count(answer, Counts(labelled=int(old is None), right=right))

    def _count(self, answer: Answer, counts: Counts) -> None:
        minute = (answer.version, answer.at.replace(second=0, microsecond=0))
        self.counts[minute] = self.counts.get(minute, Counts()) + counts

    def _answer(self, record: InferenceRecord, name: str) -> Answer:
        """A replica whose clock runs ahead must not write into the future."""
        at = record.at if record.at.tzinfo else record.at.replace(tzinfo=UTC)
        ok, task = record.outcome == "ok", self.tasks.find(name)
        return Answer(
            version=record.version,
            mirrored=record.source == Source.MIRROR,
            at=min(at, self.now),
            ok=ok,
            slow=ok and record.latency_ms > self.slow_ms,
            task=name,
            variant=self.watch.variant_of(record) if self.watch is not None else record.variant,
            answers=tuple(task.answers(record)) if ok and task is not None else (),
        )

    def _is_watched(self, answer: Answer) -> bool:
        return self.watch is not None and answer.version == self.watch.version and not answer.mirrored

    def _sample(self, record: InferenceRecord, at: datetime) -> Sample | None:
        if record.embedding is None:
            return None
        embedding = decode_embedding(record.embedding)
        if embedding is None:
            self.unreadable += 1
            return None
        text = record.representative().get("text")
        key = text_key(text) if isinstance(text, str) else None
        return Sample(request=record.request, at=at, embedding_D=embedding, text_key=key)


def _served(answer: Answer, latency_ms: float) -> Counts:
    if not answer.ok:
        return Counts(requests=1, errors=1)
    return Counts(requests=1, slow=int(answer.slow), histogram={bucket_of(latency_ms): 1})
