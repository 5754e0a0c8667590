"""Worker threads that tokenise, batch and score. The event loop only hands rows in and takes answers out."""

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from services.contracts.artifact import Precision
from services.contracts.errors import MillraceError
from services.contracts.tasks.errors import ContextLengthExceeded
from services.inference.domain.batching import Batch, BatchQueue, Limits, Row
from services.inference.domain.heads import answer
from services.inference.domain.scoring import BatchFacts, EngineEvent, EngineRequest, Loaded, Scored, Tokenised
from services.inference.domain.versions import VersionKey
from services.inference.errors import DeadlinePassed, EngineFailed, VersionNotServed
from services.inference.ports import Engine
from services.kit.core.log import logger

_TOKENISE_AT_ONCE: Final = 16
_SWEEP_SECONDS: Final = 0.05
_IDLE_SWEEP_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Job:
    """One request's texts; its future is resolved on `loop` once the last row is in."""

    future: asyncio.Future[list[Scored]]
    answers: list[Scored | None]
    left: int
    truncate: bool
    failure: MillraceError | None = None


@dataclass(slots=True)
class _Text:
    job: _Job
    index: int
    text: str
    arrived: float
    ids: list[int] = field(default_factory=list)


_Row: TypeAlias = Row[VersionKey, _Text]


class WorkerPool:
    """Scores texts on its own threads; one engine call at a time a thread.

    `load` opens an engine (on a thread of its own), `monotonic` gives seconds, and `observe` is called on a worker
    thread after every engine call.
    """

    def __init__(
        self,
        limits: Limits,
        workers: int,
        *,
        load: Callable[[Path, Precision], Engine],
        monotonic: Callable[[], float],
        observe: Callable[[str, BatchFacts], None],
    ) -> None:
        self._load = load
        self._queue: BatchQueue[VersionKey, _Text] = BatchQueue(limits)
        self._engines: dict[VersionKey, Engine] = {}
        self._monotonic = monotonic
        self._observe = observe
        self._condition = threading.Condition()
        self._stopping = False
        self._swept = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{number}", daemon=True) for number in range(workers)
        ]

    @property
    def queued(self) -> int:
        """Texts held: waiting or running."""
        return self._queue.held

    @property
    def capacity(self) -> int:
        return self._queue.limits.capacity

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    async def stop(self) -> None:
        """Lets what is queued end, then joins the threads."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in self._threads))

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        """Raises ArtifactRefused when the engine cannot open it. It answers from now on."""
        engine = await asyncio.to_thread(self._load, folder, precision)
        with self._condition:
            self._engines[key] = engine

    async def warm(self, key: VersionKey) -> None:
        await asyncio.to_thread(self._engines[key].warm, self._queue.limits.rows)

    async def unload(self, key: VersionKey) -> None:
        """Frees it; rows of it that still wait are answered with VersionNotServed."""
        with self._condition:
            engine = self._engines.pop(key, None)
        if engine is not None:
            del engine
            await asyncio.to_thread(gc.collect)

    def loaded(self, key: VersionKey) -> Loaded:
        return self._engines[key].loaded

    async def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One answer. Raises QueueFull at once where its texts do not fit, DeadlinePassed, EngineFailed and
        VersionNotServed; ContextLengthExceeded where a text is too long and may not be cut."""
        engine = self._engines.get(request.key)
        if engine is None:
            raise VersionNotServed(version=request.key.version, deployment=request.key.deployment)
        scored = await self._score(request.key, request.request.texts, request.deadline, request.request.truncate)
        yield answer(request, scored, engine.loaded.labels)

    async def _score(self, key: VersionKey, texts: Sequence[str], deadline: float, truncate: bool) -> list[Scored]:
        """Scores in the order of `texts`."""
        loop = asyncio.get_running_loop()
        job = _Job(loop.create_future(), [None] * len(texts), len(texts), truncate)
        now = self._monotonic()
        rows = [Row(key, _Text(job, index, text, now), deadline) for index, text in enumerate(texts)]
        with self._condition:
            self._queue.submit(rows)
            self._condition.notify(min(len(rows), len(self._threads)))
        try:
            return await job.future
        except asyncio.CancelledError:
            for row in rows:
                row.dropped = True
            raise

    def _work(self) -> None:
        while True:
            with self._condition:
                if not self._wait_for_rows():
                    return
                over = self._sweep()
                raw = self._queue.raw(_TOKENISE_AT_ONCE)
                batch = None if raw else self._queue.take()
            if over:
                self._refuse(over, DeadlinePassed(seconds=0))
            if raw:
                self._measure(raw)
            elif batch is not None:
                self._run(batch)

    def _wait_for_rows(self) -> bool:
        """Waits, under the lock, until there is something to do; False when the pool is to stop."""
        while not (self._queue.has_raw or self._queue.has_measured):
            if self._stopping:
                return False
            self._condition.wait(_IDLE_SWEEP_SECONDS)
        return True

    def _sweep(self) -> list[_Row]:
        now = self._monotonic()
        if now - self._swept < _SWEEP_SECONDS:
            return []
        self._swept = now
        return self._queue.sweep(now)

    def _measure(self, rows: list[_Row]) -> None:
        """Tokenises rows of any versions and puts them back with their lengths."""
        by_key: dict[VersionKey, list[_Row]] = {}
        for row in rows:
            by_key.setdefault(row.batch_key, []).append(row)
        for batch_key, group in by_key.items():
            engine = self._engines.get(batch_key)
            if engine is None:
                self._refuse(group, VersionNotServed(version=batch_key.version, deployment=batch_key.deployment))
                continue
            try:
                encoded = engine.tokenise([row.payload.text for row in group])
            except Exception:  # noqa: BLE001 - whatever broke, its callers are told
                logger.exception("tokenizer of version %s failed", batch_key.version)
                self._refuse(group, EngineFailed())
                continue
            self._take_measures(group, encoded)

    def _take_measures(self, group: list[_Row], encoded: Sequence[Tokenised]) -> None:
        """Queues the rows by their lengths, but for those that are too long and may not be cut."""
        too_long = []
        with self._condition:
            for row, read in zip(group, encoded, strict=True):
                if read.truncated and not row.payload.job.truncate:
                    too_long.append((row, read))
                    continue
                row.payload.ids = read.ids
                self._queue.measured(row, len(read.ids))
            self._condition.notify()
        for row, read in too_long:
            error = ContextLengthExceeded(limit=len(read.ids), unit="tokens", field=f"texts[{row.payload.index}]")
            self._refuse([row], error)

    def _run(self, batch: Batch[VersionKey, _Text]) -> None:
        started = self._monotonic()
        rows = [row for row in batch.rows if not row.dropped and row.deadline > started]
        if len(rows) < len(batch.rows):
            self._refuse([row for row in batch.rows if row not in rows], DeadlinePassed(seconds=0))
        engine = self._engines.get(batch.batch_key)
        if not rows:
            return
        if engine is None:
            self._refuse(rows, VersionNotServed(version=batch.batch_key.version, deployment=batch.batch_key.deployment))
            return
        self._run_rows(engine, rows)
        oldest = min(row.payload.arrived for row in rows)
        computed = Batch(batch.batch_key, rows)
        tokens = sum(row.length for row in rows)
        facts = BatchFacts(len(rows), tokens, computed.padding, self._monotonic() - started, started - oldest)
        self._observe(batch.batch_key.tenant, facts)

    def _run_rows(self, engine: Engine, rows: list[_Row]) -> None:
        """Scores together; when that fails, one by one, so that a poisonous text fails alone."""
        try:
            scored = engine.run([row.payload.ids for row in rows])
        except Exception:  # noqa: BLE001 - whatever broke, its callers are told
            if len(rows) == 1:
                logger.exception(
                    "engine of version %s failed on a text of %s tokens", rows[0].batch_key.version, rows[0].length
                )
                self._refuse(rows, EngineFailed())
                return
            for row in rows:
                self._run_rows(engine, [row])
            return
        for row, scores in zip(rows, scored, strict=True):
            row.payload.job.answers[row.payload.index] = scores
        self._answer(rows, None)

    def _refuse(self, rows: list[_Row], error: MillraceError) -> None:
        self._answer(rows, error)

    def _answer(self, rows: list[_Row], error: MillraceError | None) -> None:
        ended = []
        with self._condition:
            self._queue.release(len(rows))
            for row in rows:
                job = row.payload.job
                job.left -= 1
                job.failure = job.failure or error
                if job.left == 0:
                    ended.append(job)
        if ended and self._loop is not None:
            self._loop.call_soon_threadsafe(_resolve, ended)


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.failure is not None:
            job.future.set_exception(job.failure)
        else:
            job.future.set_result([scores for scores in job.answers if scores is not None])
