"""What a replica keeps on disk and what it sends: reports that grow, answers that are logged and never in the way."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.contracts.artifact import ArtifactRef
from services.contracts.events import ReplicaReported
from services.contracts.tasks.records import InferenceRecord
from services.inference.domain.loaded_models import LoadedModels
from services.inference.domain.records import LoggedRequest
from services.inference.outbound.artifacts import CachedArtifacts
from services.inference.outbound.desired_state import RESERVED_AT_ONCE, DesiredStateFile, ReportSequence
from services.inference.outbound.logs import Logging, LogWriter
from services.inference.outbound.reporter import ReplicaReporter, Reporting
from services.inference.telemetry import LOG_DROPPED
from services.kit.core import telemetry
from services.kit.core.clock import VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.messaging.envelope import Message, decode
from services.kit.messaging.producer import BrokerDown
from services.kit.storage.artifacts import ArtifactRefused, ArtifactStore
from tests.fixtures.metrics import Scraped
from tests.unit.inference.builders import deployment, target
from tests.waiting import LIMIT_SECONDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


@dataclass
class Broker:
    """Takes messages, or is away."""

    away: bool = False
    sent: list[Message] = field(default_factory=list)

    async def send(self, messages: list[Message]) -> None:
        if self.away:
            raise BrokerDown
        self.sent += messages

    def values(self) -> list[dict[str, Any]]:
        return [orjson.loads(message.value or b"") for message in self.sent]


@asynccontextmanager
async def going(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    await settle()
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def pass_time(clock: VirtualClock, seconds: float) -> None:
    await clock.advance(seconds)
    await settle()


# --- on disk -----------------------------------------------------------------------------------


async def test_deployments_are_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "data" / "deployments.json"
    await DesiredStateFile(path).save([deployment(4, target(1)), deployment(2, target(7), deployment="other")])
    assert await DesiredStateFile(path).load() == [
        deployment(4, target(1)),
        deployment(2, target(7), deployment="other"),
    ]


@pytest.mark.parametrize("content", [b"", b"[", b'{"a": 1}', b"\xff\xfe", b'[{"deployment": "x"}]'])
async def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "deployments.json").write_bytes(content)
    assert await DesiredStateFile(tmp_path / "deployments.json").load() == []


async def test_a_folder_that_cannot_be_written_does_not_stop_serving(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    await DesiredStateFile(tmp_path / "data" / "deployments.json").save([deployment(1, target(1))])


async def test_report_numbers_grow_over_restarts_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "sequence.json"
    first = ReportSequence(path, lambda: NOW)
    numbers = [await first.take() for _ in range(RESERVED_AT_ONCE + 5)]
    second = ReportSequence(path, lambda: datetime(2001, 1, 1, tzinfo=UTC))
    numbers += [await second.take() for _ in range(5)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == int(NOW.timestamp())


async def test_report_numbers_grow_when_the_disk_was_lost(tmp_path: Path) -> None:
    before = await ReportSequence(tmp_path / "a.json", lambda: NOW).take()
    after = await ReportSequence(tmp_path / "b.json", lambda: datetime(2026, 1, 2, tzinfo=UTC)).take()
    assert after > before


async def test_pruning_keeps_only_what_is_named(tmp_path: Path) -> None:
    for name in ("a" * 64, "b" * 64, "c" * 64 + ".partial"):
        (tmp_path / name).mkdir()
    cached = CachedArtifacts(ArtifactStore(tmp_path.as_uri(), tmp_path), tmp_path)
    await cached.prune({"a" * 64})
    left = await asyncio.to_thread(lambda: [path.name for path in tmp_path.iterdir()])
    assert left == ["a" * 64]


async def test_a_damaged_local_copy_is_fetched_again_before_the_artifact_is_refused(tmp_path: Path) -> None:
    store = DamagedOnce()
    cached = CachedArtifacts(store, tmp_path)  # type: ignore[arg-type]
    ref = target(1).artifact
    await asyncio.to_thread((tmp_path / ref.digest).mkdir)
    assert await cached.fetch(ref) == tmp_path / ref.digest
    store.refuse = True
    with pytest.raises(ArtifactRefused):
        await cached.fetch(ref)


class DamagedOnce:
    """Refuses a copy that lies there already, as the store does with one that has gone bad, and takes it away."""

    refuse = False

    async def fetch(self, ref: ArtifactRef, cache: Path) -> Path:
        there = cache / ref.digest
        if self.refuse or there.exists():
            if there.exists():
                there.rmdir()
            raise ArtifactRefused(digest="x", problem="a file is not what the manifest says")
        return there


# --- reports -----------------------------------------------------------------------------------


@dataclass
class ReporterFixture:
    reporter: ReplicaReporter
    broker: Broker
    clock: VirtualClock


@pytest.fixture
def reporter(tmp_path: Path) -> ReporterFixture:
    broker, clock, models = Broker(), VirtualClock(), LoadedModels()

    def build(sequence: int, leaving: bool) -> ReplicaReported:
        return models.report(address="h:1", sequence=sequence, capacity=64, leaving=leaving)

    sequence = ReportSequence(tmp_path / "sequence.json", clock.now)
    reporting = Reporting(broker, clock, SeededIds(0), sequence, heartbeat_seconds=3.0)
    return ReporterFixture(ReplicaReporter(build, reporting), broker, clock)


async def arrive(broker: Broker, count: int) -> None:
    """The sequence is taken on a thread, so a report needs a moment of real time."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(broker.sent) < count:  # noqa: ASYNC110 - the broker of the test knows no events
            await asyncio.sleep(0.001)
    await settle()


async def test_a_report_goes_out_at_the_start_and_as_a_heartbeat(reporter: ReporterFixture) -> None:
    async with going(reporter.reporter.run()):
        await arrive(reporter.broker, 1)
        for count in (2, 3):
            await pass_time(reporter.clock, 3.1)
            await arrive(reporter.broker, count)
    sequences = [value["sequence"] for value in reporter.broker.values()]
    assert sequences == sorted(set(sequences))


async def test_a_change_is_reported_at_once_in_its_own_trace(reporter: ReporterFixture) -> None:
    async with going(reporter.reporter.run()):
        await arrive(reporter.broker, 1)
        with telemetry.attached(TRACE):
            reporter.reporter.changed()
        await arrive(reporter.broker, 2)
    assert decode(reporter.broker.sent[0], NOW).trace == {}
    assert decode(reporter.broker.sent[1], NOW).trace == TRACE


async def test_a_report_that_could_not_be_sent_is_made_anew_when_the_broker_is_back(reporter: ReporterFixture) -> None:
    reporter.broker.away = True
    async with going(reporter.reporter.run()):
        with telemetry.attached(TRACE):
            reporter.reporter.changed()
        await asyncio.sleep(0.05)
        reporter.broker.away = False
        await pass_time(reporter.clock, 1.0)
        await arrive(reporter.broker, 1)
    assert decode(reporter.broker.sent[0], NOW).trace == TRACE


async def test_the_last_report_says_that_the_replica_leaves(reporter: ReporterFixture) -> None:
    await reporter.reporter.report_leaving()
    assert reporter.broker.values()[-1]["leaving"] is True
    reporter.broker.away = True
    await reporter.reporter.report_leaving()


# --- answers -----------------------------------------------------------------------------------


def writer_on(broker: Broker, clock: VirtualClock, **changed: Any) -> LogWriter:
    known: dict[str, Any] = {
        "replica": "r",
        "writer": broker,
        "clock": clock,
        "ids": SeededIds(0),
        "seconds": 0.5,
        "records": 10,
        "capacity": 25,
    }
    return LogWriter(Logging(**{**known, **changed}))


def answered(number: int, trace: str = "") -> LoggedRequest:
    items = [{"text": "text", "label": "files", "score": 0.5}]
    record = InferenceRecord(request=f"r{number}", version=1, at=NOW, latency_ms=1.0, tokens=3, items=items)
    return LoggedRequest("topics", "m", "classification", record, trace=trace)


def logged(broker: Broker) -> list[str]:
    return [record["request"] for value in broker.values() for record in value["records"]]


async def test_an_answer_is_logged_within_the_time_and_a_full_batch_at_once() -> None:
    broker, clock = Broker(), VirtualClock()
    log = writer_on(broker, clock)
    async with going(log.run()):
        log.add(answered(0))
        await settle()
        assert logged(broker) == []
        await pass_time(clock, 0.5)
        assert logged(broker) == ["r0"]
        for number in range(1, 11):
            log.add(answered(number))
        await settle()
        assert logged(broker) == [f"r{number}" for number in range(11)]


async def test_answers_wait_for_the_broker_in_order_and_the_oldest_go_when_there_are_too_many(
    scraped: Scraped,
) -> None:
    broker, clock = Broker(away=True), VirtualClock()
    log = writer_on(broker, clock)
    before = scraped.value(LOG_DROPPED, tenant="default")
    async with going(log.run()):
        for number in range(40):
            log.add(answered(number))
        await pass_time(clock, 1.0)
        broker.away = False
        for _ in range(4):
            await pass_time(clock, 1.0)
    assert logged(broker) == [f"r{number}" for number in range(15, 40)]
    assert scraped.value(LOG_DROPPED, tenant="default") - before == 15


async def test_closing_sends_what_still_waits() -> None:
    broker = Broker()
    log = writer_on(broker, VirtualClock())
    log.add(answered(1))
    await log.close()
    assert logged(broker) == ["r1"]


async def test_a_batch_belongs_to_the_first_trace_that_is_recorded_in_it() -> None:
    broker = Broker()
    log = writer_on(broker, VirtualClock())
    for number, trace in enumerate(["", TRACE["traceparent"], ""]):
        log.add(answered(number, trace))
    await log.close()
    assert decode(broker.sent[0], NOW).trace == TRACE
