"""What happens to a message: handled, waited for, tried again or buried. No broker is needed to tell."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from faststream.kafka import KafkaBroker
from opentelemetry.trace import SpanKind

from services.contracts.errors import Invalid, Overloaded, TooLarge, Unavailable
from services.contracts.events import FeedbackReceived
from services.kit.core.clock import VirtualClock
from services.kit.core.telemetry import DEAD_LETTERS, EVENTS_HANDLED
from services.kit.messaging.batch_consumer import BatchConsumer
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.envelope import MAX_EVENT_BYTES, Envelope, Message, encode
from services.kit.messaging.in_memory import InMemoryBroker, InMemorySubscribers
from tests.fixtures.metrics import Scraped
from tests.unit.kit.spans import Spans

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Bad(Invalid):
    """The label {label} is not one of ours."""


@dataclass
class FakeSender:
    """`Sender` into a list; fails as often as it is told to."""

    sent: list[Message] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def send(self, messages: list[Message]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        for message in messages:
            if len(message.value or b"") > MAX_EVENT_BYTES:
                raise TooLarge(what="it", limit="900000 bytes")
        self.sent.extend(messages)


@dataclass
class Handler:
    """Raises what it is told, then takes what comes."""

    raises: list[Exception] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    calls: int = 0

    async def one(self, envelope: Envelope[Any]) -> None:
        await self.many([envelope])

    async def many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        self.calls += 1
        if self.raises:
            raise self.raises.pop(0)
        self.taken += [envelope.id for envelope in envelopes]


def message(name: str = "e-1", **trace: str) -> Message:
    event = FeedbackReceived(deployment="chapters", request="r", label="x")
    now = VirtualClock().now()
    return encode(Envelope(id=name, event=event, source="test", time=now, trace=trace))


async def after(clock: VirtualClock, work: Awaitable[None]) -> float:
    """Lets virtual time pass until the work is done; how many seconds that took."""
    task = asyncio.ensure_future(work)
    while not task.done():
        for _ in range(10):
            await asyncio.sleep(0)
        if not task.done():
            await clock.advance(0.1)
    task.result()
    return clock.monotonic()


def subscribers(
    handle: Callable[[Envelope[Any]], Awaitable[None]], delivery: Delivery, clock: VirtualClock
) -> InMemorySubscribers:
    """The one handler as a service's subscriber."""

    def subscribe(broker: KafkaBroker) -> None:
        broker.subscriber("feedback.received", group_id="test", auto_offset_reset="earliest")(handle)

    return InMemorySubscribers(subscribe, delivery, clock)


@dataclass
class Delivered:
    handler: Handler = field(default_factory=Handler)
    dead: FakeSender = field(default_factory=FakeSender)
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.delivery = Delivery(self.dead, self.clock, service="monitor")
        self.subscribers = subscribers(self.handler.one, self.delivery, self.clock)

    def reader(self) -> BatchConsumer:
        return BatchConsumer(
            FeedbackReceived,
            self.handler.many,
            bootstrap_servers="nowhere:1",
            service="test",
            delivery=self.delivery,
            clock=self.clock,
        )

    async def deliver(self, *messages: Message) -> float:
        async def each() -> None:
            for one in messages:
                await self.subscribers.deliver(one)

        await self.subscribers.open()
        try:
            return await after(self.clock, each())
        finally:
            await self.subscribers.close()

    def headers(self, number: int = 0) -> dict[str, str]:
        return dict(self.dead.sent[number].headers)


@pytest.fixture
def delivered() -> Delivered:
    return Delivered()


async def test_a_message_is_handled_once(delivered: Delivered) -> None:
    assert await delivered.deliver(message("e-1"), message("e-2")) == 0
    assert (delivered.handler.taken, delivered.dead.sent) == (["e-1", "e-2"], [])


@pytest.mark.parametrize("away", [Unavailable(what="the database"), Overloaded(queued=9)])
async def test_a_part_that_is_away_is_waited_for_however_long(delivered: Delivered, away: Exception) -> None:
    delivered.handler.raises = [away] * 30
    assert await delivered.deliver(message()) >= 60
    assert (delivered.handler.calls, delivered.handler.taken, delivered.dead.sent) == (31, ["e-1"], [])


async def test_an_event_that_is_refused_is_a_dead_letter_at_once_with_the_original_beside_its_reason(
    delivered: Delivered,
) -> None:
    delivered.handler.raises = [Bad(label="weather")]
    sent = message("e-1", traceparent=TRACEPARENT)
    assert await delivered.deliver(sent, message("e-2")) == 0
    dead = delivered.dead.sent[0]
    assert (dead.topic, dead.key, dead.value) == ("feedback.received.dlq", sent.key, sent.value)
    response = delivered.headers()
    assert set(sent.headers) <= set(dead.headers)
    assert (response["dlq-topic"], response["dlq-code"], response["dlq-tries"]) == ("feedback.received", "bad", "1")
    assert response["dlq-reason"] == "The label weather is not one of ours."
    assert response["dlq-by"] == "monitor"
    assert datetime.fromisoformat(response["dlq-at"]) == delivered.clock.now()
    assert delivered.handler.taken == ["e-2"]


async def test_a_poison_message_is_tried_five_times_then_a_dead_letter_and_the_next_one_is_handled(
    delivered: Delivered,
) -> None:
    delivered.handler.raises = [RuntimeError("secret: /etc/path")] * 5
    seconds = await delivered.deliver(message("poison"), message("e-2"))
    assert 3.2 < seconds < 4.0
    assert (delivered.handler.calls, delivered.handler.taken) == (6, ["e-2"])
    assert delivered.headers()["dlq-tries"] == "5"
    assert delivered.headers()["dlq-code"] == "RuntimeError"
    assert "secret" not in delivered.headers()["dlq-reason"]


async def test_an_error_that_passes_is_no_dead_letter(delivered: Delivered) -> None:
    delivered.handler.raises = [RuntimeError()] * 4
    await delivered.deliver(message())
    assert (delivered.handler.calls, delivered.handler.taken, delivered.dead.sent) == (5, ["e-1"], [])


async def test_what_is_malformed_never_reaches_the_handler(delivered: Delivered) -> None:
    await delivered.deliver(Message("feedback.received", b"k", b"\x80pickle"), Message("feedback.received", None, None))
    assert delivered.handler.calls == 0
    assert [delivered.headers(0)["dlq-code"], delivered.headers(1)["dlq-code"]] == ["malformed_event"] * 2
    assert delivered.headers(0)["dlq-tries"] == "0"
    assert delivered.dead.sent[0].value == b"\x80pickle"


async def test_an_oversize_message_is_cut_so_that_its_dead_letter_can_be_sent(delivered: Delivered) -> None:
    size = MAX_EVENT_BYTES + 100_000
    huge = Message("feedback.received", b"k" * 5_000, b"x" * size, (("big", "y" * 50_000),))
    await delivered.deliver(huge, message("e-2"))
    response = delivered.headers()
    assert (response["dlq-cut"], response["dlq-code"], "big" in response) == (str(size), "malformed_event", False)
    assert len(delivered.dead.sent[0].value or b"") < MAX_EVENT_BYTES
    assert delivered.handler.taken == ["e-2"]


async def test_a_message_whose_dead_letter_cannot_be_sent_is_not_forgotten(delivered: Delivered) -> None:
    delivered.dead.failures = [Unavailable(what="the broker")]
    with pytest.raises(Unavailable):
        await delivered.deliver(Message("feedback.received", None, b"{"))
    assert delivered.clock.monotonic() >= 2.0, "the redelivery is not at once"


async def test_handling_is_a_span_under_the_one_that_sent(delivered: Delivered, spans: Spans) -> None:
    seen: list[str] = []

    async def handle(envelope: Envelope[Any]) -> None:
        seen.append(spans.current_trace())

    delivered.subscribers = subscribers(handle, delivered.delivery, delivered.clock)
    await delivered.deliver(message("e-1", traceparent=TRACEPARENT))
    made = spans.only("process feedback.received")
    assert made.kind is SpanKind.CONSUMER
    assert made.parent is not None
    assert f"{made.parent.span_id:016x}" == "b7ad6b7169203331"
    assert seen == ["0af7651916cd43dd8448eb211c80319c"]
    assert dict(made.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "feedback.received",
        "messaging.message.id": "e-1",
    }


async def test_a_batch_is_handled_at_once_and_its_malformed_messages_become_dead_letters_once(
    delivered: Delivered,
) -> None:
    delivered.handler.raises = [Bad(label="z")]
    broken = Message("feedback.received", None, b"{")
    await after(delivered.clock, delivered.reader().deliver([message("e-1"), broken, message("e-2")]))
    codes = [delivered.headers(number)["dlq-code"] for number in range(3)]
    assert codes == ["malformed_event", "bad", "bad"]
    await after(delivered.clock, delivered.reader().deliver([message("e-3"), broken, message("e-4")]))
    assert delivered.handler.taken == ["e-3", "e-4"]
    assert len(delivered.dead.sent) == 4


@pytest.mark.parametrize(
    ("errors", "calls", "dead"),
    [([RuntimeError()] * 4, 5, 0), ([RuntimeError()] * 5, 5, 2), ([Unavailable(what="x")] * 9, 10, 0)],
)
async def test_a_batch_is_retried_like_a_message(
    delivered: Delivered, errors: list[Exception], calls: int, dead: int
) -> None:
    delivered.handler.raises = errors
    await after(delivered.clock, delivered.reader().deliver([message("e-1"), message("e-2")]))
    assert (delivered.handler.calls, len(delivered.dead.sent)) == (calls, dead)


async def test_the_memory_bus_delivers_in_the_order_of_sending_what_handlers_send_included() -> None:
    bus, seen = InMemoryBroker(), list[str]()
    clock = VirtualClock()

    def group(name: str, then: Callable[[Envelope[Any]], list[Message]]) -> InMemorySubscribers:
        async def handle(envelope: Envelope[Any]) -> None:
            seen.append(f"{name}:{envelope.id}")
            await bus.send(then(envelope))

        return subscribers(handle, Delivery(bus, clock), clock)

    groups = [group("a", lambda e: [message("e-3")] if e.id == "e-1" else []), group("b", lambda e: [])]
    for one in groups:
        await one.open()
    bus.join(groups)
    await bus.send([message("e-1"), message("e-2")])
    assert await bus.deliver_all() == 3
    assert seen == ["a:e-1", "b:e-1", "a:e-2", "b:e-2", "a:e-3", "b:e-3"]
    assert await bus.deliver_all() == 0
    for one in groups:
        await one.close()


@pytest.mark.parametrize(
    ("headers", "value", "tenant"),
    [
        ((("ce_specversion", "1.0"), ("ce_id", "e"), ("ce_tenant", "acme")), b"not JSON", "acme"),
        ((), b'{"specversion": "1.0", "id": "e", "tenant": "acme", "data": {"wrong": 1}}', "acme"),
        ((), b"{}", "default"),
        ((("ce_specversion", "1.0"), ("ce_id", "e"), ("ce_tenant", "No Name!")), b"{}", ""),
    ],
)
async def test_a_dead_letter_is_counted_for_the_tenant_that_it_names(
    headers: tuple[tuple[str, str], ...], value: bytes, tenant: str, scraped: Scraped
) -> None:
    series = {"topic": "feedback.received", "code": "malformed_event", "tenant": tenant}
    before = scraped.value(DEAD_LETTERS, **series)
    delivery = Delivery(FakeSender(), VirtualClock())
    assert await delivery.decode(Message("feedback.received", b"k", value, headers)) is None
    assert scraped.value(DEAD_LETTERS, **series) == before + 1


async def test_a_batch_is_counted_by_the_tenants_of_its_events(scraped: Scraped) -> None:
    handler, clock = Handler(), VirtualClock()
    delivery = Delivery(FakeSender(), clock)
    consumer = BatchConsumer(
        FeedbackReceived, handler.many, bootstrap_servers="", service="s", delivery=delivery, clock=clock
    )
    event = FeedbackReceived(deployment="chapters", request="r", label="x")
    tenants = ("batch-a", "batch-a", "batch-b")
    await consumer.deliver(
        [encode(Envelope(f"e-{n}", event, "test", clock.now(), tenant=tenant)) for n, tenant in enumerate(tenants)]
    )
    counts = [scraped.value(EVENTS_HANDLED, tenant=name, topic=event.topic) for name in ("batch-a", "batch-b")]
    assert counts == [2, 1]
