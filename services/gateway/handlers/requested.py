"""A request that came as an event is answered by an event: with what the deployment says, or with the refusal."""

from datetime import timedelta
from typing import Final

from services.contracts.errors import InternalError, MillraceError
from services.contracts.events import InferenceCompleted, InferenceRequested
from services.gateway.domain.requested import answered, command_of, refused
from services.gateway.errors import AnswerTooLarge, RequestExpired
from services.gateway.handlers.retrying import RetryingClient
from services.gateway.ports import Ports
from services.gateway.telemetry import ASYNC_REQUESTS, ASYNC_SECONDS
from services.kit.core.log import logger
from services.kit.messaging.envelope import MAX_EVENT_BYTES, Envelope

FOREVER: Final = float("inf")


async def answer_request(
    envelope: Envelope[InferenceRequested], client: RetryingClient, ports: Ports
) -> InferenceCompleted:
    """Always an answer: whoever asked waits for it and for nothing else."""
    try:
        completed = await _answer(envelope, client, ports)
        outcome = "ok"
    except MillraceError as error:
        completed, outcome = refused(envelope, error), error.code
    except Exception:  # noqa: BLE001 - the caller waits, and learns nothing of the inside
        logger.exception("a request failed inside")
        completed, outcome = refused(envelope, InternalError()), "internal_error"
    ASYNC_REQUESTS.add(1, tenant=envelope.tenant, outcome=outcome)
    ASYNC_SECONDS.record(max(0.0, (ports.clock.now() - envelope.time).total_seconds()), tenant=envelope.tenant)
    return completed


async def _answer(envelope: Envelope[InferenceRequested], client: RetryingClient, ports: Ports) -> InferenceCompleted:
    expires_at = envelope.event.expires_at
    left = FOREVER if expires_at is None else (expires_at - ports.clock.now()) / timedelta(seconds=1)
    if expires_at is not None and left <= 0:
        raise RequestExpired(expires_at=expires_at.isoformat())
    command = command_of(envelope, ports.tasks.named(envelope.event.task), deadline=ports.clock.monotonic() + left)
    try:
        answer = await client.predict(command)
    except MillraceError as error:
        if error.retryable and expires_at is not None and ports.clock.now() >= expires_at:
            raise RequestExpired(expires_at=expires_at.isoformat()) from error  # whatever kept it waiting
        raise
    completed = answered(envelope, answer)
    if len(completed.model_dump_json()) + len(envelope.key or b"") > MAX_EVENT_BYTES:
        raise AnswerTooLarge(what="the answer", limit=f"{MAX_EVENT_BYTES} bytes")
    return completed
