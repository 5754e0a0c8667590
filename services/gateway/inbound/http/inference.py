"""The hot paths: `POST /api/v1/deployments/{deployment}/VERB`, one for each task, from ASGI straight to the handler."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import orjson

from services.contracts.errors import MillraceError
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.stream import Delta
from services.contracts.tasks.task import StreamingTask
from services.gateway.domain.requests import Predict, answer_of, check_name
from services.gateway.handlers import answer, predict
from services.gateway.inbound.converters import Edge, read_json, write_json
from services.gateway.inbound.http import request_reader
from services.gateway.inbound.http.event_stream import MEDIA, event, send_events, while_connected
from services.gateway.inbound.http.request_reader import BodyLimits
from services.gateway.inbound.http.responses import refused, server_span
from services.gateway.inbound.http.rest_app import TIMEOUT_HEADER, AdmittedRequest
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, respond

PREFIX: Final = "/api/v1/deployments/"
METHOD: Final = "/millrace.v1.InferenceService/Stream"
"""The gRPC method that takes requests of every task: its role is theirs."""


class InferenceApp:
    """Translates; the rules are the handler's."""

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits

    def hot_path(self, verb: str, path: str) -> tuple[str, AnyTask] | None:
        """Deployment and task of a hot path; None for any other."""
        if verb != "POST" or not path.startswith(PREFIX):
            return None
        deployment, _, action = path[len(PREFIX) :].partition("/")
        task = self._ports.tasks.by_verb(action)
        return (deployment, task) if task is not None else None

    async def serve(self, deployment: str, task: AnyTask, request: AdmittedRequest) -> None:
        headers, actor = request.headers, request.principal.actor
        check_role(request.principal, METHOD)
        check_name(deployment, "deployment")
        sent = await request_reader.read_json(request.receive, headers, self._limits)
        edge = Edge(request.principal.tenant, self._deadline(task, request), self._ports.ids)
        sampling = self._sampler.decide(headers.get(b"traceparent"), headers.get(b"tracestate"))
        route, path = f"{PREFIX}{{deployment}}/{task.verb}", f"{PREFIX}{deployment}/{task.verb}"
        with traced(sampling, partial(server_span, "POST", route, path, sampling.carrier, actor=actor)) as opened:
            traceparent = telemetry.current_traceparent()
            command = read_json(sent, deployment, task, edge)
            opened.set_attribute("millrace.request", command.request_id)
            trace = (b"traceparent", traceparent.encode())
            if isinstance(task, StreamingTask) and headers.get(b"accept", "").startswith(MEDIA):
                await send_events(request, self._events(command, task), [trace], _error_event)
                return
            answering = answer(command, self._ports)
            is_long = isinstance(task, StreamingTask)
            answered = await (while_connected(request, answering) if is_long else answering)
            opened.set_attributes({"millrace.deployment": deployment, "millrace.version": answered.version})
        version = (b"x-millrace-version", str(answered.version).encode())
        await respond(request.send, 200, orjson.dumps(write_json(answered)), [JSON, version, trace])

    def _deadline(self, task: AnyTask, request: AdmittedRequest) -> float:
        """An answer that is generated may take longer than others, where its client does not say how long it waits."""
        if not isinstance(task, StreamingTask) or TIMEOUT_HEADER in request.headers:
            return request.deadline
        return self._ports.clock.monotonic() + self._ports.policy.stream_seconds

    async def _events(self, command: Predict, task: StreamingTask[Any, Any, Any]) -> AsyncGenerator[bytes, None]:
        """`delta` for each chunk, then `result`, as the answer in one piece would be."""
        async with aclosing(predict(command, self._ports)) as events:
            async for one in events:
                if isinstance(one, Delta):
                    yield event(orjson.dumps(task.show_chunk(task.decode_chunk(one.payload))), "delta")
                else:
                    yield event(orjson.dumps(write_json(answer_of(command, one))), "result")


def _error_event(error: MillraceError) -> bytes:
    return event(refused(error)[1], "error")
