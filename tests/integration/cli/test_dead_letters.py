"""A data set that was refused, mended and sent again by hand is one run, on both brokers."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from faststream.kafka import KafkaBroker
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.consumer import Watcher
from services.cli.producer import RecordSender
from services.contracts.errors import Invalid
from services.contracts.events import DatasetReady, DeploymentChanged
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import API_KEY_FILE
from services.kit.messaging.dead_letters import DeadLetterQueue
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import Envelope, Message, encode
from services.kit.messaging.event_consumer import EventConsumer
from services.kit.messaging.producer import EventProducer
from services.trainer.domain.runs import Run, RunFilter
from services.trainer.handlers.runs import on_dataset_ready
from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway
from tests.integration.trainer.service import TrainerFixture, opened
from tests.waiting import LIMIT_SECONDS

TOPIC = "dataset.ready"
BODY = {"dataset": "docs", "uri": "file:///data/docs.jsonl", "model": "topics"}


class NoCapacityYet(Invalid):
    """There is no room for the data set yet."""


@dataclass
class Trainer:
    """The trainer's own handler and store behind the real bus; it refuses everything until it is mended."""

    trainer: TrainerFixture
    servers: str
    writer: EventProducer
    mended: bool = False
    calls: list[str] = field(default_factory=list)

    def bus(self) -> EventConsumer:
        clock, group = SystemClock(), f"trainer-{uuid.uuid4().hex[:8]}"

        def subscribe(broker: KafkaBroker) -> None:
            broker.subscriber("dataset.ready", group_id=group, auto_offset_reset="earliest")(self._handle)

        delivery = Delivery(self.writer, clock, service="trainer")
        return EventConsumer(subscribe, delivery, clock, bootstrap_servers=self.servers, service="trainer")

    async def _handle(self, envelope: Envelope[DatasetReady]) -> None:
        try:
            if not self.mended:
                raise NoCapacityYet
            await on_dataset_ready(envelope, self.trainer.ports)
        finally:
            self.calls.append(envelope.id)

    async def runs(self) -> list[Run]:
        async with self.trainer.store.reading() as tx:
            return await tx.runs("default", RunFilter(), before="", limit=10)


@pytest.fixture
async def gateway(
    bootstrap_servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GatewayUnderTest]:
    """The one that the command calls."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers)
    async with open_gateway(tmp_path / "gateway", bootstrap_servers) as harness:
        monkeypatch.setenv("MILLRACE_URL", f"http://{harness.rest}")
        monkeypatch.setenv("MILLRACE_API_KEY_FILE", str(harness.home / "keys" / API_KEY_FILE))
        yield harness


@pytest.fixture
async def trainer(gateway: GatewayUnderTest, bootstrap_servers: str, tmp_path: Path) -> AsyncIterator[Trainer]:
    writer = EventProducer(bootstrap_servers, "test")
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/trainer.db", tmp_path) as trainer:
        made = Trainer(trainer, bootstrap_servers, writer)
        async with attempts(made.bus()):
            yield made
    await writer.close()


@asynccontextmanager
async def attempts(bus: EventConsumer) -> AsyncIterator[None]:
    task = asyncio.create_task(bus.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def millrace(*arguments: str) -> Any:
    """What a command told as JSON."""
    done = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def dead_letters(count: int) -> list[dict[str, Any]]:
    """The dead letters of the topic once there are so many."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        matches: list[dict[str, Any]] = (await millrace("dlq", "list", TOPIC))["dead_letters"]
        if len(matches) >= count:
            return matches
        assert time.monotonic() < deadline, matches


async def announced_by_kafka(servers: str) -> None:
    """As a person with kcat does: no header, no id."""
    producer = Producer({"bootstrap.servers": servers, "log_level": 0})
    producer.produce(TOPIC, json.dumps(BODY).encode(), key=b"docs")
    assert await asyncio.to_thread(producer.flush, 20) == 0


async def announced_by_command(_: str) -> None:
    fields = [part for name, value in BODY.items() for part in ("--field", f"{name}={value}")]
    await millrace("events", "send", TOPIC, *fields, "--id", "evt-mine")


@pytest.mark.slow
@pytest.mark.parametrize("announce", [announced_by_kafka, announced_by_command], ids=["plain", "with an id"])
async def test_a_refused_data_set_sent_again_twice_once_mended_is_one_run(trainer: Trainer, announce: Any) -> None:
    await announce(trainer.servers)
    [dead_letter] = await dead_letters(1)
    assert (dead_letter["status"], dead_letter["code"], dead_letter["by"], dead_letter["tries"]) == (
        "waiting",
        "no_capacity_yet",
        "trainer",
        1,
    )
    assert await trainer.runs() == []

    # Not mended yet: it becomes a letter again, which remembers the first.
    assert (await millrace("dlq", "redeliver", dead_letter["address"], "--yes"))["sent"] == 1
    first, second = await dead_letters(2)
    assert (first["status"], first["failed_again"]) == ("failed_again", second["address"])
    assert (second["redelivery_of"], second["event_id"]) == (dead_letter["address"], dead_letter["event_id"])

    trainer.mended = True
    assert (await millrace("dlq", "redeliver", second["address"], "--yes"))["sent"] == 1
    assert (await millrace("dlq", "redeliver", first["address"], "--again", "--yes"))["sent"] == 1
    await until(lambda: len(trainer.calls) == 4, f"both redeliveries arrived: {trainer.calls}")
    assert set(trainer.calls) == {dead_letter["event_id"]}
    assert [run.dataset for run in await trainer.runs()] == ["docs"]
    assert [one["status"] for one in await dead_letters(2)] == ["failed_again", "redelivered"]
    assert (await millrace("dlq", "redeliver", "--all", "--yes"))["sent"] == 0


@pytest.mark.slow
async def test_a_malformed_data_set_is_corrected_under_an_id_of_its_own(trainer: Trainer, tmp_path: Path) -> None:
    trainer.mended = True
    await trainer.writer.send([Message(TOPIC, b"docs", b'{"dataset": "docs"}')])
    [dead_letter] = await dead_letters(1)
    [left_out] = (await millrace("dlq", "redeliver", "--all", "--yes"))["redeliveries"]
    assert left_out["skipped"] == "malformed"

    file = tmp_path / "corrected.json"
    file.write_text(json.dumps(BODY))
    for _ in range(2):
        await millrace("dlq", "redeliver", dead_letter["address"], "--body", str(file), "--yes")
    await until(lambda: len(trainer.calls) == 2, f"both corrections were delivered: {trainer.calls}")
    assert len(await trainer.runs()) == 1
    shown = await millrace("dlq", "show", dead_letter["address"])
    assert (shown["status"], shown["redelivered_as"]) == ("redelivered", trainer.calls[0])
    assert shown["redelivered_as"] != shown["event_id"]


@pytest.mark.slow
async def test_a_key_goes_where_the_services_put_it_and_a_time_is_found(bootstrap_servers: str) -> None:
    """Else one key would have two orders."""
    keys = [f"key-{number}" for number in range(12)]
    writer = EventProducer(bootstrap_servers, "test")
    await writer.send([Message(TOPIC, key.encode(), b"1") for key in keys])
    await writer.close()
    await asyncio.sleep(0.01)
    between = SystemClock().now()
    await asyncio.sleep(0.01)
    placed = await asyncio.to_thread(
        RecordSender(bootstrap_servers), [Message(TOPIC, key.encode(), b"2") for key in keys]
    )
    assert len(placed) == len(keys)
    matches = {(seen.key, seen.value): seen.partition for seen in read(bootstrap_servers)}
    assert [matches[key, b"1"] for key in keys] == [matches[key, b"2"] for key in keys]
    assert {seen.value for seen in read(bootstrap_servers, since=between)} == {b"2"}


@pytest.mark.usefixtures("gateway")
async def test_an_older_event_of_a_compacted_topic_is_not_sent_again(bootstrap_servers: str) -> None:
    """After compaction the old one would be all that a new replica reads."""
    changes = [change(generation) for generation in (1, 2)]
    writer = EventProducer(bootstrap_servers, "test")
    dead_letters = DeadLetterQueue(writer, SystemClock(), service="monitor")
    await writer.send(changes)
    for one in changes:
        await dead_letters.send_to_dlq(one, NoCapacityYet(), tries=1)
    await writer.close()
    events = await millrace("dlq", "redeliver", "--topic", "deployment.changed", "--yes")
    assert [(one["event_id"], one["skipped"]) for one in events["redeliveries"]] == [
        ("evt-1", "superseded"),
        ("evt-2", ""),
    ]


def change(generation: int) -> Message:
    event = DeploymentChanged(deployment="docs", model="docs", generation=generation, targets=[], reason="a test")
    return encode(Envelope(id=f"evt-{generation}", event=event, source="test", time=SystemClock().now()))


def read(servers: str, **options: Any) -> list[Any]:
    watcher = Watcher(servers, [TOPIC], from_beginning=True, **options)
    try:
        return list(iter(partial(watcher.poll, 1.0), None))
    finally:
        watcher.close()
