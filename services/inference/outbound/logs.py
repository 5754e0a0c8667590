"""Sends answers as `inference.logged`, in batches, beside the requests and never in their way."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from services.contracts.errors import MillraceError
from services.inference.domain.records import LogBuffer, LoggedRequest, to_events
from services.inference.outbound.reporter import SOURCE
from services.inference.telemetry import LOG_DROPPED
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.core.log import logger
from services.kit.messaging.envelope import Envelope, encode
from services.kit.messaging.ports import Sender

SHUTDOWN_REPORT_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Logging:
    """How the log is written."""

    replica: str
    writer: Sender
    clock: Clock
    ids: Ids
    seconds: float
    records: int
    capacity: int


class LogWriter:
    """Bounded: while the broker is away the oldest answers are given up, and counted."""

    def __init__(self, logging: Logging) -> None:
        self._with = logging
        self._buffer = LogBuffer(logging.capacity)
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._counted: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """Answers in memory that were not sent yet."""
        return len(self._buffer)

    def add(self, logged: LoggedRequest) -> None:
        """Never waits and never fails."""
        self._buffer.add(logged)
        self._some.set()
        if len(self._buffer) >= self._with.records:
            self._many.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            await self._more_or_time()
            try:
                await self.flush()
            except MillraceError as error:
                logger.warning("%s answers wait to be logged: %s", len(self._buffer), error)
                await self._with.clock.sleep(self._with.seconds)

    async def flush(self) -> None:
        """Sends all that waits. Raises a retryable refusal when the broker is away; what was not sent waits on."""
        try:
            while len(self._buffer):
                await self._send(self._buffer.take(self._with.records))
            self._some.clear()
        finally:
            if len(self._buffer) < self._with.records:
                self._many.clear()
            self._count_drops()

    async def close(self) -> None:
        """Sends what waits, for three seconds at most."""
        try:
            async with asyncio.timeout(SHUTDOWN_REPORT_SECONDS):
                await self.flush()
        except (TimeoutError, MillraceError) as error:
            logger.warning("%s answers were not logged: %s", len(self._buffer), error)

    async def _send(self, answers: list[LoggedRequest]) -> None:
        now = self._with.clock.now()
        # One event stands for many requests: it belongs to the first of their traces that is kept.
        trace = next(({"traceparent": logged.trace} for logged in answers if logged.trace), {})
        events = to_events(answers, replica=self._with.replica)
        messages = [
            encode(Envelope(self._with.ids.new("event"), event, SOURCE, now, tenant=tenant, trace=trace))
            for tenant, event in events
        ]
        try:
            await self._with.writer.send(messages)
        except asyncio.CancelledError:
            self._buffer.put_back(answers)
            raise
        except MillraceError as error:
            if not error.retryable:
                logger.error("%s answers cannot be logged: %s", len(answers), error)
                _count_dropped(Counter(answered.tenant for answered in answers))
                return
            self._buffer.put_back(answers)
            raise

    async def _more_or_time(self) -> None:
        waits = [
            asyncio.ensure_future(self._many.wait()),
            asyncio.ensure_future(self._with.clock.sleep(self._with.seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _count_drops(self) -> None:
        _count_dropped(self._buffer.dropped - self._counted)
        self._counted = self._buffer.dropped.copy()


def _count_dropped(by_tenant: Counter[str]) -> None:
    for tenant, answers in by_tenant.items():
        LOG_DROPPED.add(answers, tenant=tenant)
