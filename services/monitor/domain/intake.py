"""Takes in answered requests and labels, and says what changes: answers, minutes, windows' arrivals and the tally."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.contracts.events import InferenceRecord
from services.monitor.domain.ledger import Answer, Contest, Known, Tally, news
from services.monitor.domain.slo import Counts, bucket_of
from services.monitor.domain.windows import Arrival, Sample, decode_embedding, text_key

Minute = tuple[int, datetime]


@dataclass
class Intake:
    """A batch of news about one deployment. `known` is what was known before, and is kept up to date."""

    known: dict[str, Known]
    contest: Contest | None
    watched: int | None
    """The version whose inputs are tested for drift."""
    slow_ms: float
    now: datetime
    answers: list[tuple[str, Answer]] = field(default_factory=list)
    counts: dict[Minute, Counts] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    tally: Tally = Tally()
    repeated: int = 0
    unreadable: int = 0

    def add(self, record: InferenceRecord) -> None:
        """A version's second answer to a request is a repetition and changes nothing."""
        answer = self._answer(record)
        before = self.known.get(record.request, Known())
        after = before.with_answer(answer)
        if after is before:
            self.repeated += 1
            return
        self.answers.append((record.request, answer))
        self._learn(record.request, before, after)
        if not answer.mirrored:
            self._count(answer, _served(answer, record.latency_ms))
        if after.truth is not None:
            self._count(answer, _labelled(answer, after.truth))
        if answer.version == self.watched and not answer.mirrored:
            self.arrivals.append(Arrival(record.request, self._sample(record, answer.at)))

    def label(self, request: str, truth: str) -> bool:
        """False when the request had a label already: the first one counts."""
        before = self.known.get(request, Known())
        after = before.with_truth(truth)
        if after is before:
            return False
        self._learn(request, before, after)
        for answer in after.answers:
            self._count(answer, _labelled(answer, truth))
        return True

    def _learn(self, request: str, before: Known, after: Known) -> None:
        self.known[request] = after
        if self.contest is not None:
            self.tally += news(before, after, self.contest)

    def _count(self, answer: Answer, counts: Counts) -> None:
        minute = (answer.version, answer.at.replace(second=0, microsecond=0))
        self.counts[minute] = self.counts.get(minute, Counts()) + counts

    def _answer(self, record: InferenceRecord) -> Answer:
        """A replica whose clock runs ahead must not write into the future."""
        at = record.at if record.at.tzinfo else record.at.replace(tzinfo=UTC)
        ok = record.outcome == "ok" and record.label is not None
        return Answer(
            version=record.version,
            mirrored=record.mirrored,
            at=min(at, self.now),
            ok=ok,
            slow=ok and record.latency_ms > self.slow_ms,
            label=record.label if ok else None,
        )

    def _sample(self, record: InferenceRecord, at: datetime) -> Sample | None:
        if record.embedding is None:
            return None
        embedding = decode_embedding(record.embedding)
        if embedding is None:
            self.unreadable += 1
            return None
        key = text_key(record.text) if record.text is not None else None
        return Sample(request=record.request, at=at, embedding_D=embedding, text_key=key)


def _served(answer: Answer, latency_ms: float) -> Counts:
    if not answer.ok:
        return Counts(requests=1, errors=1)
    return Counts(requests=1, slow=int(answer.slow), histogram={bucket_of(latency_ms): 1})


def _labelled(answer: Answer, truth: str) -> Counts:
    return Counts(labelled=1, right=int(answer.label == truth)) if answer.ok else Counts()
