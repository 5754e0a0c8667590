"""Publishes what this replica serves: on every change, and as a heartbeat."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.contracts.errors import MillraceError
from services.contracts.events import ReplicaReported
from services.inference.outbound.desired_state import ReportSequence
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.core.log import logger
from services.kit.messaging.envelope import Envelope, EventRef, encode
from services.kit.messaging.ports import Sender

SOURCE: Final = "millrace-inference"
SHUTDOWN_REPORT_SECONDS: Final = 2.0
AWAY_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Reporting:
    """What a report needs that the loaded models do not say."""

    writer: Sender
    clock: Clock
    ids: Ids
    sequence: ReportSequence
    heartbeat_seconds: float


class ReplicaReporter:
    """Sends the newest state, never an older one; a report that could not be sent is made anew and sent again.

    `build(sequence, leaving)` makes the report at the moment of sending.
    """

    def __init__(self, build: Callable[[int, bool], ReplicaReported], reporting: Reporting) -> None:
        self._build = build
        self._with = reporting
        self._changed = asyncio.Event()
        self._trace: dict[str, str] = {}
        self._cause: EventRef | None = None

    def changed(self, cause: EventRef | None = None) -> None:
        """A report goes out soon, in the trace that is present now, and in the story of `cause`."""
        self._trace = telemetry.current_carrier() or self._trace
        self._cause = cause or self._cause
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            trace, cause = self._take()
            try:
                await self._send(trace, cause, leaving=False)
            except MillraceError as error:
                logger.warning("the report of this replica waits: %s", error)
                self._trace = self._trace or trace
                self._cause = self._cause or cause
                await self._with.clock.sleep(AWAY_PAUSE_SECONDS)
                continue
            await self._change_or_heartbeat()

    def _take(self) -> tuple[dict[str, str], EventRef | None]:
        """Trace and cause of the newest change, for one report; after it they are used up."""
        taken = self._trace, self._cause
        self._trace, self._cause = {}, None
        return taken

    async def report_leaving(self) -> None:
        """The last report: nothing should be routed here any more. Gives up after two seconds."""
        try:
            async with asyncio.timeout(SHUTDOWN_REPORT_SECONDS):
                await self._send({}, None, leaving=True)
        except (TimeoutError, MillraceError) as error:
            logger.warning("leaving without a word: %s", error)

    async def _send(self, trace: dict[str, str], cause: EventRef | None, *, leaving: bool) -> None:
        sequence = await self._with.sequence.take()
        envelope = Envelope(
            id=self._with.ids.new("event"),
            event=self._build(sequence, leaving),
            source=SOURCE,
            time=self._with.clock.now(),
            causation=cause.id if cause else "",
            correlation=cause.correlation_id if cause else "",
            trace=trace,
        )
        await self._with.writer.send([encode(envelope)])

    async def _change_or_heartbeat(self) -> None:
        waits = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(self._with.clock.sleep(self._with.heartbeat_seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
