"""The two FastStream middlewares of every subscriber; the dead letter's is the outer one.

`DeadLetterMiddleware` retries by the one policy and sends what is given up to `<topic>.dlq`, after which the message is
acknowledged. `EnvelopeMiddleware` decodes the CloudEvent (in any of its wire forms), so that the subscriber is called
with an `Envelope` of its tenant, and makes each try a `process` span under the span that sent the event.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import ConsumerRecord
from faststream import BaseMiddleware, ContextRepo, StreamMessage
from opentelemetry.trace import SpanKind

from services.contracts.events import Event
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.messaging.consumer_loop import RETRY_SECONDS
from services.kit.messaging.delivery import Delivery, process_attributes
from services.kit.messaging.envelope import Envelope, decode
from services.kit.messaging.records import to_message

CallNext = Callable[[StreamMessage[Any]], Awaitable[Any]]


class DeadLetterMiddleware(BaseMiddleware[Any, ConsumerRecord[Any, Any]]):
    """Raises only if the dead letter cannot be sent; the message is not acknowledged then, and comes again."""

    def __init__(
        self, record: ConsumerRecord[Any, Any], /, *, context: ContextRepo, delivery: Delivery, clock: Clock
    ) -> None:
        super().__init__(record, context=context)
        self._delivery = delivery
        self._clock = clock

    async def consume_scope(self, call_next: CallNext, msg: StreamMessage[Any]) -> None:
        try:
            await self._delivery.attempt([to_message(msg.raw_message)], lambda: call_next(msg))
        except Exception:
            await self._clock.sleep(RETRY_SECONDS)  # a nack seeks back at once: without a pause it spins
            raise


class EnvelopeMiddleware(BaseMiddleware[Any, ConsumerRecord[Any, Any]]):
    """Raises MalformedEvent and UnknownEventType before the subscriber is called."""

    def __init__(self, record: ConsumerRecord[Any, Any], /, *, context: ContextRepo, clock: Clock) -> None:
        super().__init__(record, context=context)
        self._clock = clock

    async def consume_scope(self, call_next: CallNext, msg: StreamMessage[Any]) -> None:
        envelope = decode(to_message(msg.raw_message), self._clock.now())
        topic = envelope.event.topic

        async def decoded(_: StreamMessage[Any]) -> Envelope[Event]:
            return envelope

        msg.set_decoder(decoded)
        with telemetry.span(
            f"process {topic}",
            kind=SpanKind.CONSUMER,
            parent=envelope.trace,
            attributes=process_attributes(topic, envelope.id),
        ):
            with telemetry.EVENT_SECONDS.time(tenant=envelope.tenant, topic=topic):
                await call_next(msg)
            telemetry.EVENTS_HANDLED.add(1, tenant=envelope.tenant, topic=topic)
