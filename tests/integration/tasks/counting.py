"""A third task, defined here alone: how many words each text has. Its answers come in chunks, one a text."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import orjson

from services.contracts.artifact import Precision
from services.contracts.errors import Malformed
from services.contracts.tasks import TASKS, Tasks
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.records import Answer, InferenceRecord, Item
from services.contracts.tasks.task import AnswerInfo, Metric, RequestLimits, StreamingTask
from services.contracts.tasks.texts import check_texts, logged_texts, read_texts
from services.inference.domain.scoring import Chunk, Done, EngineEvent, EngineRequest, Loaded
from services.inference.domain.versions import VersionKey

MISCOUNTING: Final = 2
"""The version that finds a word too many in every text."""


@dataclass(frozen=True, slots=True)
class Texts:
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Counts:
    counts: Sequence[int]


class Counting(StreamingTask[Texts, Counts, int]):
    name: ClassVar[str] = "word-counting"
    verb: ClassVar[str] = "count"
    fields: ClassVar[frozenset[str]] = frozenset({"texts"})
    metric: ClassVar[Metric] = Metric("exactness", "share of texts that were counted right")

    def read(self, sent: Mapping[str, Any]) -> Texts:
        return Texts(read_texts(sent))

    def decode(self, payload: bytes) -> Texts:
        return Texts(_loaded(payload))

    def encode(self, request: Texts) -> bytes:
        return orjson.dumps(list(request.texts))

    def check(self, request: Texts, limits: RequestLimits) -> None:
        check_texts(request.texts, limits, truncate=True)

    def size(self, request: Texts) -> int:
        return len(request.texts)

    def encode_result(self, result: Counts, info: AnswerInfo) -> bytes:
        return orjson.dumps(list(result.counts))

    def decode_result(self, payload: bytes) -> Counts:
        return Counts(_loaded(payload))

    def show(self, result: Counts) -> dict[str, Any]:
        return {"counts": list(result.counts)}

    def lines(self, result: Counts) -> list[dict[str, Any]]:
        return [{"count": count} for count in result.counts]

    def encode_chunk(self, chunk: int) -> bytes:
        return orjson.dumps(chunk)

    def decode_chunk(self, payload: bytes) -> int:
        count: int = orjson.loads(payload)
        return count

    def show_chunk(self, chunk: int) -> dict[str, Any]:
        return {"count": chunk}

    def items(self, request: Texts, result: Counts | None, *, with_inputs: bool) -> list[Item]:
        items: list[Item] = logged_texts(request.texts) if with_inputs else [{} for _ in request.texts]
        if result is not None:
            for item, count in zip(items, result.counts, strict=True):
                item["count"] = count
        return items

    def answers(self, record: InferenceRecord) -> list[Answer]:
        return [item.get("count") for item in record.items]

    def judge(self, answer: Answer, feedback: Feedback) -> float | None:
        return feedback.grade if feedback.reference is None else float(str(answer) == feedback.reference)

    def compare(self, left: Answer, right: Answer) -> float | None:
        return float(left == right)


def _loaded(payload: bytes) -> list[Any]:
    try:
        values: list[Any] = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Malformed(problem="it is not JSON", field="payload") from error
    return values


COUNTING: Final = Counting()
WITH_COUNTING: Final = Tasks(*TASKS, COUNTING)


class CountingEngines:
    """`Engines` of inference that count words."""

    queued = 0
    capacity = 64

    def __init__(self) -> None:
        self._versions: set[VersionKey] = set()

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        self._versions.add(key)

    async def warm(self, key: VersionKey) -> None:
        assert key in self._versions

    async def unload(self, key: VersionKey) -> None:
        self._versions.discard(key)

    def loaded(self, key: VersionKey) -> Loaded:
        assert key in self._versions
        return Loaded([], max_length=64, device="cpu", tasks=frozenset({COUNTING.name}))

    async def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        counts = []
        for text in request.request.texts:
            counts.append(len(text.split()) + (request.key.version == MISCOUNTING))
            yield Chunk(counts[-1])
        yield Done(Counts(counts), tokens=sum(counts))
