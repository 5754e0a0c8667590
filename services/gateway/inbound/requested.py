"""`inference.requested`: each request becomes a command, its answer an event under the request's own key."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from opentelemetry.trace import Span, SpanKind

from services.contracts.errors import MillraceError
from services.gateway.domain.requested import reply_to, request_of
from services.gateway.handlers.requested import answer_request
from services.gateway.handlers.retrying import RetryingClient
from services.gateway.inbound.sampling import Sampler, Sampling, traced
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.core.log import logger
from services.kit.messaging.delivery import process_attributes
from services.kit.messaging.envelope import Envelope, encode
from services.kit.messaging.ports import Sender

RETRY_SECONDS: Final = 1.0


def answering(
    ports: Ports, client: RetryingClient, sampler: Sampler, answers: Sender
) -> Callable[[Envelope[Any]], Awaitable[None]]:
    """Each call returns once its answer is with the broker; raises TooLarge for a key that no answer fits beside."""

    async def answer(envelope: Envelope[Any], tracestate: Mapping[str, str]) -> None:
        completed = await answer_request(envelope, client, ports)
        trace = {**tracestate, "traceparent": telemetry.current_traceparent()}
        message = encode(reply_to(envelope, completed, at=ports.clock.now(), trace=trace))
        while True:
            try:
                await answers.send([message])
                return
            except MillraceError as error:
                if not error.retryable:
                    raise
                logger.warning("an answer waits: %s", error)
                await ports.clock.sleep(RETRY_SECONDS)

    async def handle(envelope: Envelope[Any]) -> None:
        sampling = sampler.decide(envelope.trace.get("traceparent"), envelope.trace.get("tracestate"))
        tracestate = {name: value for name, value in sampling.carrier.items() if name == "tracestate"}
        with traced(sampling, partial(_span, envelope, sampling)):
            await answer(envelope, tracestate)

    return handle


def _span(envelope: Envelope[Any], sampling: Sampling) -> AbstractContextManager[Span]:
    topic = envelope.event.topic
    attributes = process_attributes(topic, envelope.id) | {
        "millrace.request": request_of(envelope),
        "millrace.deployment": envelope.event.deployment,
    }
    return telemetry.span(f"process {topic}", kind=SpanKind.CONSUMER, parent=sampling.carrier, attributes=attributes)
