"""Messaging on the embedded broker and on Apache Kafka; what subscribers see, on the in-memory broker too."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.cli.launcher.ports import any_free
from services.contracts.errors import Invalid, TooLarge, Unavailable
from services.contracts.events import DeploymentChanged, FeedbackReceived, TrainingFailed
from services.kit.core.clock import SystemClock
from services.kit.messaging import concurrent_consumer, consumer_loop, event_consumer, middlewares, retry
from services.kit.messaging.batch_consumer import BatchConsumer
from services.kit.messaging.compacted_topic_reader import CompactedTopicReader
from services.kit.messaging.concurrent_consumer import ConcurrentConsumer
from services.kit.messaging.envelope import Envelope, Message
from services.kit.messaging.producer import BrokerDown, EventProducer
from tests.integration.kit.consumers import LIMIT, InMemoryMessaging, MessagingUnderTest, message, read
from tests.integration.kit.services import feedback
from tests.unit.kit.spans import Spans, span_of, trace_of

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Bad(Invalid):
    """It is bad."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses between tries are not the subject here."""
    monkeypatch.setattr(retry, "PAUSES_SECONDS", (0.01,) * 4)
    monkeypatch.setattr(retry, "UNAVAILABLE_PAUSE_SECONDS", 0.05)
    for module in (event_consumer, consumer_loop, concurrent_consumer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(middlewares, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(event_consumer, "PROBE_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(concurrent_consumer, "SHUTDOWN_SECONDS", 0.3)


def changed(deployment: str, generation: int) -> Message:
    event = DeploymentChanged(deployment=deployment, model="m", generation=generation, targets=[], reason="r")
    return message(event, f"{deployment}-{generation}")


@asynccontextmanager
async def running(run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


@pytest.fixture
async def messaging(bootstrap_servers: str) -> AsyncIterator[MessagingUnderTest]:
    writer = EventProducer(bootstrap_servers, "test")
    yield MessagingUnderTest(bootstrap_servers, writer)
    await writer.close()


@pytest.fixture(params=["memory", "embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def any_messaging(request: pytest.FixtureRequest) -> AsyncIterator[MessagingUnderTest]:
    """The in-memory broker as well: what a subscriber sees is the same on all three."""
    if request.param == "memory":
        yield InMemoryMessaging("", EventProducer("nowhere:1", "test"))
        return
    servers = request.getfixturevalue(
        {"embedded": "embedded_bootstrap", "kafka": "apache_kafka_bootstrap"}[request.param]
    )
    writer = EventProducer(servers, "test")
    yield MessagingUnderTest(servers, writer)
    await writer.close()


async def test_control_events_are_handled_refused_sent_to_the_dead_letters_and_waited_for(
    any_messaging: MessagingUnderTest,
) -> None:
    any_messaging.failures = {
        "poison": [RuntimeError("boom")] * 9,
        "refused": [Bad()],
        "away": [Unavailable(what="the database")] * 7,
    }
    await any_messaging.send("first", "poison", "refused", "away", "last")
    bus = any_messaging.bus()
    async with running(bus.run):
        await until(lambda: "last" in any_messaging.taken, "the last event")
        await until(bus.connected.is_set, "both subscribers are connected")
    assert any_messaging.taken == ["first", "away", "last"]
    assert [any_messaging.calls.count(name) for name in ("poison", "refused", "away")] == [5, 1, 8]
    dead = await any_messaging.dead(2)
    assert [(one.header("ce_id"), one.header("dlq-code"), one.header("dlq-tries")) for one in dead] == [
        ("e-poison", "RuntimeError", "5"),
        ("e-refused", "bad", "1"),
    ]
    assert {one.header("dlq-topic") for one in dead} == {"feedback.received"}
    assert dead[0].key == b"chapters"
    assert dead[0].value == feedback("poison").model_dump_json().encode()


async def test_whatever_another_producer_sends_the_partition_advances(any_messaging: MessagingUnderTest) -> None:
    body = feedback("plain").model_dump_json().encode()
    await any_messaging.raw(
        (b"\x80\x04pickle", []),
        (None, []),
        (b"[" * 100_000, []),
        (b"x" * 1_000_000, [("h", b"\xff"), ("reply_to", b"training.failed")]),
        (body, [("ce_type", b"millrace.feedback.received.v9")]),
        (body, [("ce_specversion", b"1.0")]),
        (body, [("odd", None), ("ce_source", b"\xff\xfe")]),
    )
    async with running(any_messaging.bus().run):
        await until(lambda: any_messaging.taken == ["plain"], "the one good message")
    dead = await any_messaging.dead(6)
    assert [one.header("dlq-code") for one in dead] == ["malformed_event"] * 4 + [
        "unknown_event_type",
        "malformed_event",
    ]
    assert (dead[3].header("dlq-cut"), dead[0].value) == ("1000000", b"\x80\x04pickle")


async def test_a_service_that_starts_again_goes_on_behind_what_it_handled(messaging: MessagingUnderTest) -> None:
    await messaging.send("a", "b")
    async with running(messaging.bus().run):
        await until(lambda: messaging.taken == ["a", "b"], "the first two")
        await asyncio.sleep(0.3)
    await messaging.send("c")
    async with running(messaging.bus().run):
        await until(lambda: "c" in messaging.taken, "the third")
    assert messaging.taken == ["a", "b", "c"]


async def test_one_trace_goes_through_sending_and_handling(any_messaging: MessagingUnderTest, spans: Spans) -> None:
    await any_messaging.send("a", traceparent=TRACEPARENT)
    async with running(any_messaging.bus().run):
        await until(lambda: any_messaging.taken == ["a"], "the event")
        await until(lambda: bool(spans.named("process feedback.received")), "its span")
    handled = spans.only("process feedback.received")
    assert trace_of(handled) == "0af7651916cd43dd8448eb211c80319c"
    assert handled.parent is not None
    assert f"{handled.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span_of(handled) != "b7ad6b7169203331"


async def test_batches_are_committed_and_what_is_malformed_becomes_a_dead_letter(messaging: MessagingUnderTest) -> None:
    def reader() -> BatchConsumer:
        return BatchConsumer(
            FeedbackReceived,
            messaging.handle_many,
            bootstrap_servers=messaging.servers,
            service=messaging.service,
            delivery=messaging.delivery(),
            clock=SystemClock(),
        )

    messaging.failures = {"r-7": [RuntimeError()] * 3}
    await messaging.raw((b"{", []))
    await messaging.send(*(f"r-{number}" for number in range(50)))
    async with running(reader().run):
        await until(lambda: {f"r-{n}" for n in range(50)} <= set(messaging.taken), "all fifty")
        await asyncio.sleep(0.3)
    assert (await messaging.dead(1))[0].header("dlq-code") == "malformed_event"
    messaging.taken.clear()
    await messaging.send("next")
    async with running(reader().run):
        await until(lambda: "next" in messaging.taken, "the one after")
    assert messaging.taken == ["next"]


async def test_a_crash_of_the_concurrent_consumer_redelivers_what_was_in_progress(
    messaging: MessagingUnderTest,
) -> None:
    """No offset is committed past an event that is still being handled, however many behind it have ended."""
    unblocked, handled = asyncio.Event(), list[str]()

    async def handle(envelope: Envelope[Any]) -> None:
        if envelope.event.request == "slow":
            await unblocked.wait()
        handled.append(envelope.event.request)

    def consumer() -> ConcurrentConsumer:
        return ConcurrentConsumer(
            FeedbackReceived,
            handle,
            bootstrap_servers=messaging.servers,
            service=messaging.service,
            delivery=messaging.delivery(),
            clock=SystemClock(),
            limit=8,
            limit_bytes=1_000_000,
        )

    await messaging.send("first", "slow", "third", "fourth")
    async with running(consumer().run):
        await until(lambda: set(handled) == {"first", "third", "fourth"}, "all but the slow one")
        await asyncio.sleep(3 * concurrent_consumer.COMMIT_SECONDS)  # it has committed by then
    unblocked.set()
    handled.clear()
    async with running(consumer().run):
        await until(lambda: len(handled) == 3, "the slow one and those behind it, again")
        await asyncio.sleep(2 * concurrent_consumer.COMMIT_SECONDS)
    assert sorted(handled) == ["fourth", "slow", "third"]
    await messaging.send("last")
    handled.clear()
    async with running(consumer().run):
        await until(lambda: "last" in handled, "what came later")
    assert handled == ["last"]


async def test_the_latest_of_a_compacted_topic_is_read_from_its_beginning_by_everyone(
    messaging: MessagingUnderTest,
) -> None:
    await messaging.writer.send([changed("a", 1), changed("b", 1), changed("a", 2)])
    await messaging.writer.send(
        [Message("deployment.changed", b"x", b"{"), Message("deployment.changed", b"gone", None)]
    )
    for _ in range(2):
        seen: dict[str, int] = {}

        async def handle(envelope: Envelope[DeploymentChanged], seen: dict[str, int] = seen) -> None:
            if envelope.event.deployment == "b":
                seen["b"] = 1
                raise Bad
            seen[envelope.event.deployment] = envelope.event.generation

        reader = CompactedTopicReader(
            {DeploymentChanged: handle}, bootstrap_servers=messaging.servers, client="test", clock=SystemClock()
        )
        async with running(reader.run):
            await asyncio.wait_for(reader.caught_up.wait(), LIMIT)
            assert seen == {"a": 2, "b": 1}
    async with running(reader.run):
        await messaging.writer.send([changed("a", 3)])
        await until(lambda: seen["a"] == 3, "what came later")


async def test_a_reader_of_empty_topics_has_caught_up(messaging: MessagingUnderTest) -> None:
    async def handle(envelope: Envelope[Any]) -> None:
        raise AssertionError

    reader = CompactedTopicReader(
        {TrainingFailed: handle}, bootstrap_servers=messaging.servers, client="t", clock=SystemClock()
    )
    async with running(reader.run):
        await asyncio.wait_for(reader.caught_up.wait(), LIMIT)


async def test_order_holds_for_each_key_and_too_large_a_message_breaks_nothing(messaging: MessagingUnderTest) -> None:
    names = [f"r-{number}" for number in range(100)]
    await messaging.send(*names[:50])
    with pytest.raises(TooLarge):
        await messaging.writer.send([Message("feedback.received", b"k", b"x" * 900_001)])
    with pytest.raises(TooLarge):
        await messaging.writer.send([Message("feedback.received", b"k", b"x" * 899_000, (("h", "y" * 200_000),))])
    await messaging.send(*names[50:])
    output = await read(messaging.servers, "feedback.received", 100)
    assert [one.header("ce_id") for one in output] == [f"e-{name}" for name in names]


async def test_without_a_broker_sending_is_refused_and_the_bus_waits() -> None:
    nowhere = f"127.0.0.1:{any_free()}"
    writer = EventProducer(nowhere, "test")
    with pytest.raises(BrokerDown) as down:
        await writer.send([message(feedback(), "e")])
    assert down.value.retryable
    await writer.close()
    bus = MessagingUnderTest(nowhere, writer).bus()
    async with running(bus.run) as task:
        await asyncio.sleep(1)
        assert not task.done()
        assert not bus.connected.is_set()
