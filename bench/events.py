"""An event from its acceptance in one service to its handling in the next.

Accepted: the transaction that holds the outbox row has committed. Handled: the receiver's transaction, with its
inbox row, has committed. Both databases are SQLite with synchronous=FULL; relay,
producer and consumer are those of the services. One event at a time, so that queueing hides nothing.
"""

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from faststream.kafka import KafkaBroker
from sqlmodel.ext.asyncio.session import AsyncSession

from bench.fleet import running_broker
from bench.report import Figure, at_most
from services.cli.launcher.kafka import missing_tools
from services.contracts.events import FeedbackReceived
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope
from services.kit.messaging.event_consumer import EventConsumer
from services.kit.messaging.producer import EventProducer
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.relay import Relay
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork
from services.registry.app import MIGRATIONS

WARM_UP: Final = 10
EVENTS: Final = 400
LIMIT_SECONDS: Final = 10.0


def measure() -> list[Figure]:
    """On Apache Kafka where Java and Maven are, and on the embedded broker."""
    figures: list[Figure] = []
    for kind, events in (("kafka", EVENTS), ("embedded", EVENTS // 10)):
        if kind == "kafka" and missing_tools():
            continue
        with running_broker(kind) as bootstrap:
            milliseconds = sorted(1000 * seconds for seconds in asyncio.run(_latencies(bootstrap, events)))
        p99 = milliseconds[int(len(milliseconds) * 0.99)]
        section = f"event, accepted to handled ({kind})"
        remark = f"{events} events, one at a time"
        figures += [
            at_most(section, "p50", statistics.median(milliseconds), "ms", 10, remark),
            at_most(section, "p99", p99, "ms", 40, remark),
        ]
    return figures


async def _latencies(bootstrap: str, events: int) -> list[float]:
    clock = SystemClock()
    handled: asyncio.Queue[float] = asyncio.Queue(maxsize=1)
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        async with _store(Path(folder) / "sender") as sender, _store(Path(folder) / "receiver") as receiver:

            def subscribe(broker: KafkaBroker) -> None:
                @broker.subscriber("feedback.received", group_id="millrace.bench", auto_offset_reset="earliest")
                async def on_feedback_received(envelope: Envelope[FeedbackReceived]) -> None:
                    async with receiver.transaction() as tx:
                        await tx.mark_processed(envelope)
                    await handled.put(clock.monotonic())

            writer = EventProducer(bootstrap, "bench")
            consumer = EventConsumer(
                subscribe, Delivery(writer, clock), clock, bootstrap_servers=bootstrap, service="bench"
            )
            tasks = [asyncio.create_task(run()) for run in (Relay(sender.database, writer, clock).run, consumer.run)]
            try:
                await asyncio.wait_for(consumer.connected.wait(), LIMIT_SECONDS)
                return [await _one(sender, handled, clock, number) for number in range(WARM_UP + events)][WARM_UP:]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await writer.close()


async def _one(sender: SqlStore[Any], handled: "asyncio.Queue[float]", clock: SystemClock, number: int) -> float:
    async with sender.transaction() as tx:
        await tx.emit(FeedbackReceived(deployment="bench", request=f"req-{number}", label="a"))
    accepted = clock.monotonic()
    return await asyncio.wait_for(handled.get(), LIMIT_SECONDS) - accepted


@asynccontextmanager
async def _store(folder: Path) -> AsyncIterator[SqlStore[SqlUnitOfWork]]:
    database = Database(f"sqlite+aiosqlite:///{folder / 'state.db'}", MIGRATIONS)

    def begin(session: AsyncSession) -> SqlUnitOfWork:
        return SqlUnitOfWork(session, clock=SystemClock(), ids=SystemIds(), source="bench")

    await database.open()
    try:
        yield SqlStore(database, begin)
    finally:
        await database.close()
