"""The worker threads: order, batching, refusals, and a poisonous text that fails alone."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from services.contracts.artifact import Precision
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest
from services.contracts.tasks.errors import ContextLengthExceeded
from services.inference.domain.batching import Limits
from services.inference.domain.heads import ENCODER_TASKS
from services.inference.domain.scoring import BatchFacts, Done, EngineRequest, Loaded, Scored, Tokenised
from services.inference.errors import DeadlinePassed, EngineFailed, QueueFull, VersionNotServed
from services.inference.outbound.pool import WorkerPool
from tests.unit.inference.builders import key

FAR = 30.0


@dataclass
class WordCounter:
    """Scores a text by its number of words; waits for `gate` first, and breaks on the word 'poison'."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    loaded: Loaded = field(default_factory=lambda: Loaded(["few", "many"], 16, "cpu", ENCODER_TASKS))

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        read = [[99 if word == "poison" else len(word) for word in text.split()] for text in texts]
        return [Tokenised(ids[:16], truncated=len(ids) > 16) for ids in read]

    def run(self, rows: Sequence[Sequence[int]]) -> list[Scored]:
        assert self.gate.wait(5)
        self.batches.append(len(rows))
        if any(99 in row for row in rows):
            raise RuntimeError("the model broke")
        return [Scored([float(len(row)), 0.0], b"", b"", len(row)) for row in rows]

    def warm(self, rows: int) -> None:
        self.gate.set()


Observe = Callable[[str, BatchFacts], None]


@asynccontextmanager
async def running(
    engine: WordCounter,
    *,
    workers: int = 1,
    capacity: int = 64,
    observe: Observe | None = None,
) -> AsyncIterator[WorkerPool]:
    def load(_folder: Path, _precision: Precision) -> WordCounter:
        return engine

    pool = WorkerPool(
        Limits(capacity=capacity, rows=8, tokens=1000, padding=0.2),
        workers,
        load=load,
        monotonic=time.monotonic,
        observe=observe or (lambda _tenant, _facts: None),
    )
    await pool.start()
    await pool.load(key(1), Path(), Precision.FP32)
    try:
        yield pool
    finally:
        engine.gate.set()
        await pool.stop()


def deadline(seconds: float = FAR) -> float:
    return time.monotonic() + seconds


async def score(pool: WorkerPool, texts: Sequence[str], until: float, *, truncate: bool = True) -> list[float]:
    """The number of words of each text."""
    request = EngineRequest(key(1), CLASSIFICATION, ClassificationRequest(texts, truncate=truncate), until)
    (event,) = [event async for event in pool.submit(request)]
    assert isinstance(event, Done)
    return [prediction.score for prediction in event.result.predictions]


async def counted(pool: WorkerPool, text: str) -> float:
    [words] = await score(pool, [text], deadline())
    return words


async def test_every_caller_gets_the_answer_to_its_own_texts() -> None:
    engine = WordCounter()
    engine.gate.set()
    async with running(engine, workers=2) as pool:
        texts = [["a " * (1 + (i + j) % 7) for j in range(1 + i % 3)] for i in range(60)]
        answers = []
        for some in (texts[:20], texts[20:40], texts[40:]):
            answers += await asyncio.gather(*(score(pool, part, deadline()) for part in some))
        assert answers == [[len(text.split()) for text in part] for part in texts]
        assert pool.queued == 0


async def test_texts_that_wait_while_the_engine_works_form_one_batch() -> None:
    engine, seen = WordCounter(), list[BatchFacts]()
    async with running(engine, observe=lambda _tenant, facts: seen.append(facts)) as pool:
        first = asyncio.create_task(counted(pool, "one"))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(counted(pool, "one two")) for _ in range(5)]
        await asyncio.sleep(0.05)
        engine.gate.set()
        assert await asyncio.gather(first, *others) == [1, 2, 2, 2, 2, 2]
    assert [facts.rows for facts in seen] == [1, 5]
    assert seen[1].padding == 0


async def test_a_full_queue_refuses_at_once_and_the_waiting_ones_are_answered() -> None:
    engine = WordCounter()
    async with running(engine, capacity=3) as pool:
        waiting = [asyncio.create_task(counted(pool, "one")) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFull):
            await counted(pool, "one")
        engine.gate.set()
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        assert await counted(pool, "one two") == 2


async def test_a_text_whose_deadline_passes_in_the_queue_is_never_run() -> None:
    engine = WordCounter()
    async with running(engine) as pool:
        running_first = asyncio.create_task(counted(pool, "one"))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(score(pool, ["too late"], deadline(0.05)))
        await asyncio.sleep(0.1)
        engine.gate.set()
        with pytest.raises(DeadlinePassed):
            await late
        assert await running_first == 1
    assert engine.batches == [1]


async def test_a_caller_that_goes_away_leaves_nothing_behind() -> None:
    engine = WordCounter()
    async with running(engine) as pool:
        first = asyncio.create_task(counted(pool, "one"))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(counted(pool, "gone"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.01)
        engine.gate.set()
        await first
        assert await counted(pool, "one two") == 2
        assert pool.queued == 0
    assert sum(engine.batches) == 2


async def test_a_text_that_breaks_the_model_fails_alone() -> None:
    engine = WordCounter()
    async with running(engine) as pool:
        first = asyncio.create_task(counted(pool, "one"))
        await asyncio.sleep(0.05)
        mixed = [asyncio.create_task(counted(pool, text)) for text in ("good", "poison", "fine")]
        await asyncio.sleep(0.05)
        engine.gate.set()
        results = await asyncio.gather(*mixed, return_exceptions=True)
        assert [results[0], results[2]] == [1, 1]
        assert isinstance(results[1], EngineFailed)
        assert await first == 1
        assert pool.queued == 0


async def test_rows_of_an_unloaded_version_are_refused_and_the_pool_lives_on() -> None:
    engine = WordCounter()
    engine.gate.set()
    async with running(engine) as pool:
        await pool.unload(key(1))
        with pytest.raises(VersionNotServed):
            await counted(pool, "one")
        await pool.load(key(1), Path(), Precision.FP32)
        assert await counted(pool, "one") == 1


async def test_stopping_answers_what_is_queued_first() -> None:
    engine = WordCounter()
    async with running(engine) as pool:
        waiting = [asyncio.create_task(counted(pool, "one")) for _ in range(20)]
        await asyncio.sleep(0.05)
    assert await asyncio.gather(*waiting) == [1] * 20


async def test_a_text_that_may_not_be_truncated_is_refused_alone_when_it_is_too_long() -> None:
    engine = WordCounter()
    engine.gate.set()
    async with running(engine) as pool:
        long = score(pool, ["one", "a " * 17], deadline(), truncate=False)
        truncated = score(pool, ["a " * 17], deadline())
        refused, read = await asyncio.gather(long, truncated, return_exceptions=True)
        assert isinstance(refused, ContextLengthExceeded)
        assert (refused.field, refused.details["limit"]) == ("texts[1]", 16)
        assert read == [16]
        assert pool.queued == 0
