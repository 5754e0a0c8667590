"""`POST /v1/chat/completions` and `/v1/completions`, streamed and in one piece."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson
from opentelemetry.trace import Span

from services.contracts.errors import MillraceError
from services.contracts.tasks import GENERATION
from services.contracts.tasks.generation import GenerationResult
from services.contracts.tasks.stream import Delta, PredictEvent
from services.gateway.domain.requests import Predict
from services.gateway.errors import FirstTokenTooLate, ModelNotFound, UnknownDeployment, VersionNotServed
from services.gateway.handlers import answer, predict
from services.gateway.inbound.http.event_stream import event, send_events, while_connected
from services.gateway.inbound.http.request_reader import BodyLimits, read_json
from services.gateway.inbound.http.responses import server_span
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.inbound.openai.embeddings import seconds_of
from services.gateway.inbound.openai.generation_requests import (
    CompletionRequest,
    read_chat,
    read_completion,
    renamed,
)
from services.gateway.inbound.openai.generation_responses import CompletionWriter
from services.gateway.inbound.openai.request_id import current_request_id
from services.gateway.inbound.openai.responses import refused, status_of
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.gateway.telemetry import FIRST_TOKEN_SECONDS
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, Header, respond

CHAT_COMPLETIONS: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
READERS: Final = {CHAT_COMPLETIONS: read_chat, COMPLETIONS: read_completion}
METHOD: Final = "/millrace.v1.InferenceService/Generate"
"""The gRPC method whose role these paths need."""
DONE: Final = event(b"[DONE]")


@dataclass(frozen=True, slots=True)
class _Completion:
    """One request, as it is asked for and as it is written."""

    request: CompletionRequest
    command: Predict
    writer: CompletionWriter
    first_by: float
    """When the first token must be there, by the monotonic clock."""


class Completions:
    """Translates; the rules are the handler's. An error before the first event is an HTTP error, and one after it an
    event: a stream never ends in silence."""

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits

    async def serve(self, path: str, request: AdmittedRequest) -> None:
        check_role(request.principal, METHOD)
        sent = await read_json(request.receive, request.headers, self._limits)
        sampling = self._sampler.decide(request.headers.get(b"traceparent"), request.headers.get(b"tracestate"))
        actor, carrier = request.principal.actor, sampling.carrier
        span = partial(server_span, "POST", path, path, carrier, actor=actor, status_of=status_of)
        with traced(sampling, span) as opened:
            opened.set_attribute("millrace.request", current_request_id())
            completion = self._read(READERS[path](sent), request, sent)
            headers = [
                (b"x-request-id", current_request_id().encode()),
                (b"traceparent", telemetry.current_traceparent().encode()),
            ]
            async with self._as_the_client_named_it(completion.request, sent):
                if completion.request.stream:
                    await send_events(request, self._events(completion, opened), headers, _error_event)
                else:
                    await while_connected(request, self._respond(completion, request, headers, opened))

    def _read(self, read: CompletionRequest, request: AdmittedRequest, sent: dict[str, Any]) -> _Completion:
        now, request_id = self._ports.clock.monotonic(), current_request_id()
        command = Predict(
            tenant=request.principal.tenant,
            deployment=read.deployment,
            task=GENERATION,
            request=read.generation,
            request_id=request_id,
            deadline=now + seconds_of(request.headers, self._ports.policy.stream_seconds),
            sticky_key=read.user,
            version=read.version,
        )
        writer = CompletionWriter(
            request_id=request_id,
            created=int(self._ports.clock.now().timestamp()),
            model=sent["model"],
            is_chat=read.is_chat,
            include_usage=read.include_usage,
            with_logprobs=read.with_logprobs,
        )
        return _Completion(read, command, writer, first_by=min(command.deadline, request.deadline))

    async def _respond(
        self, completion: _Completion, request: AdmittedRequest, headers: list[Header], span: Span
    ) -> None:
        answered = await answer(completion.command, self._ports)
        result: GenerationResult = answered.result()
        completion.writer.model = f"{answered.deployment}@{answered.version}"
        _describe(span, completion, answered.version, result)
        headers = [JSON, *headers, (b"x-millrace-version", str(answered.version).encode())]
        await respond(request.send, 200, orjson.dumps(completion.writer.response(result)), headers)

    async def _events(self, completion: _Completion, span: Span) -> AsyncGenerator[bytes, None]:
        """Raises FirstTokenTooLate, and what the handler raises."""
        writer, command = completion.writer, completion.command
        began = self._ports.clock.monotonic()
        async with aclosing(predict(command, self._ports)) as events:
            first = await self._first(events, completion)
            elapsed = self._ports.clock.monotonic() - began
            FIRST_TOKEN_SECONDS.record(elapsed, tenant=command.tenant, deployment=command.deployment)
            async for one in _after(first, events):
                writer.model = f"{command.deployment}@{one.version}"
                if isinstance(one, Delta):
                    for chunk in writer.chunks(GENERATION.decode_chunk(one.payload)):
                        yield event(orjson.dumps(chunk))
                    continue
                result = GENERATION.decode_result(one.payload)
                _describe(span, completion, one.version, result)
                if writer.include_usage:
                    yield event(orjson.dumps(writer.usage_chunk(result)))
        yield DONE

    async def _first(self, events: AsyncGenerator[PredictEvent, None], completion: _Completion) -> PredictEvent:
        left = completion.first_by - self._ports.clock.monotonic()
        try:
            async with asyncio.timeout(left):
                return await anext(events)
        except TimeoutError as error:
            raise FirstTokenTooLate(seconds=round(left, 3)) from error

    @asynccontextmanager
    async def _as_the_client_named_it(self, read: CompletionRequest, sent: dict[str, Any]) -> AsyncIterator[None]:
        """Errors of the handler, in the words of this API."""
        try:
            yield
        except (UnknownDeployment, VersionNotServed) as unknown:
            raise ModelNotFound(model=sent["model"]) from unknown
        except MillraceError as error:
            raise renamed(error, is_chat=read.is_chat) from error.__cause__


async def _after(first: PredictEvent, events: AsyncGenerator[PredictEvent, None]) -> AsyncIterator[PredictEvent]:
    yield first
    async for one in events:
        yield one


def _describe(span: Span, completion: _Completion, version: int, result: GenerationResult) -> None:
    """By OpenTelemetry's conventions for generative AI, 1.41; what was asked and answered stays out of traces."""
    sampling = completion.request.generation.sampling
    span.set_attributes(
        {
            "gen_ai.operation.name": "chat" if completion.request.is_chat else "text_completion",
            "gen_ai.provider.name": "millrace",
            "gen_ai.request.model": completion.command.deployment,
            "gen_ai.response.model": f"{completion.command.deployment}@{version}",
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.usage.input_tokens": result.prompt_tokens,
            "gen_ai.usage.output_tokens": result.completion_tokens,
            "gen_ai.response.finish_reasons": [choice.finish_reason for choice in result.choices],
            "millrace.deployment": completion.command.deployment,
            "millrace.version": version,
        }
    )


def _error_event(error: MillraceError) -> bytes:
    return event(refused(error)[1])
