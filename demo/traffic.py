"""Real requests from a real client: classification over REST, and the right label as feedback afterwards."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from demo.corpus import Text
from services.kit.core.clock import Clock

SHOWN_FAILURES: Final = 10
IN_FLIGHT: Final = 12


@dataclass(frozen=True)
class Reply:
    """What the door answered."""

    request: str
    version: int
    label: str


class ClassifyClient(Protocol):
    """Where requests go; anything it raises counts as a failed request."""

    async def classify(self, text: str) -> Reply: ...

    async def feedback(self, request: str, label: str) -> None: ...


@dataclass(frozen=True)
class Answered:
    """A text, and what was answered to it."""

    text: Text
    version: int
    label: str
    at: datetime

    @property
    def right(self) -> bool:
        return self.label == self.text.label


@dataclass
class Mix:
    """Where the next text comes from: the quiet pool, or with `share` the shifted one; each goes round and round."""

    quiet: deque[Text]
    shifted: deque[Text]
    dice: random.Random
    share: float = 0.0

    @classmethod
    def of(cls, quiet: Sequence[Text], shifted: Sequence[Text], seed: int) -> "Mix":
        return cls(deque(quiet), deque(shifted), random.Random(seed))

    def draw(self) -> Text:
        pool = self.shifted if self.dice.random() < self.share else self.quiet
        pool.rotate(-1)
        return pool[-1]


@dataclass
class Totals:
    """Every request that the demo sent."""

    sent: int = 0
    failed: int = 0
    feedback_sent: int = 0
    feedback_failed: int = 0
    by_version: Counter[int] = field(default_factory=Counter)
    last_at: dict[int, datetime] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note_failure(self, error: BaseException) -> None:
        if len(self.failures) < SHOWN_FAILURES:
            self.failures.append(f"{type(error).__name__}: {error}")


class Traffic:
    """Sends single texts, at most twelve at once, and counts what became of them."""

    def __init__(self, client: ClassifyClient, mix: Mix, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self.mix = mix
        self.totals = Totals()
        self.rate = 0.0
        """Requests a second of the flow; 0 pauses it."""
        self.labelled = 1.0
        """Share of the flow's answers that get feedback."""

    async def classify(self, text: Text, *, feedback: bool) -> Answered | None:
        """None when the request failed; that is counted, and so is failed feedback."""
        async with self._slots:
            self.totals.sent += 1
            try:
                reply = await self._client.classify(text.text)
            except Exception as error:  # noqa: BLE001 - whatever a client can meet is a failed request
                self.totals.failed += 1
                self.totals.note_failure(error)
                return None
            now = self._clock.now()
            self.totals.by_version[reply.version] += 1
            self.totals.last_at[reply.version] = now
            if feedback:
                await self._show(reply.request, text.label)
            return Answered(text, reply.version, reply.label, now)

    async def classify_all(self, texts: Sequence[Text]) -> list[Answered]:
        """Without feedback; the answers in the order of the texts, failed ones left out."""
        matches = await asyncio.gather(*(self.classify(text, feedback=False) for text in texts))
        return [answered for answered in matches if answered is not None]

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """While the block runs, texts of the mix are sent at `rate`; it ends when the last one was answered."""
        stop = asyncio.Event()
        flow = asyncio.create_task(self._flow(stop))
        try:
            yield
        finally:
            stop.set()
            await flow

    async def _flow(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            due = self._clock.monotonic()
            while not stop.is_set():
                now = self._clock.monotonic()
                if self.rate <= 0 or self._slots.locked():
                    due = now
                    await self._clock.sleep(0.005 if self.rate > 0 else 0.05)
                    continue
                if due > now:
                    await self._clock.sleep(min(due - now, 0.1))
                    continue
                tasks.create_task(self._one())
                due += 1 / self.rate
                await self._clock.sleep(0)

    async def _one(self) -> None:
        await self.classify(self.mix.draw(), feedback=self.mix.dice.random() < self.labelled)

    async def _show(self, request: str, label: str) -> None:
        self.totals.feedback_sent += 1
        try:
            await self._client.feedback(request, label)
        except Exception as error:  # noqa: BLE001 - as above
            self.totals.feedback_failed += 1
            self.totals.note_failure(error)
