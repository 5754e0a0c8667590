"""The hot path: `POST /api/v1/deployments/{deployment}/classify`, from ASGI straight to the handler."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.gateway.domain.requests import Answer, Classify, check_name
from services.gateway.errors import BadField
from services.gateway.handlers import classify
from services.gateway.inbound.http.answers import server_span
from services.gateway.inbound.http.body import BodyLimits, read_json
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Ports
from services.kit import telemetry
from services.kit.auth import Principal
from services.kit.http import JSON, Receive, Send, respond

PREFIX: Final = "/api/v1/deployments/"
SUFFIX: Final = "/classify"
ROUTE: Final = PREFIX + "{deployment}" + SUFFIX
_FIELDS: Final = frozenset({"texts", "request_id", "sticky_key", "deployment"})


class ClassifyDoor:
    """Translates; the rules are the handler's."""

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits, *, request_seconds: float) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits
        self._request_seconds = request_seconds

    async def serve(
        self, path: str, headers: Mapping[bytes, str], principal: Principal, receive: Receive, send: Send
    ) -> None:
        deployment = path[len(PREFIX) : -len(SUFFIX)]
        check_name(deployment, "deployment")
        sent = await read_json(receive, headers, self._limits)
        sampling = self._sampler.decide(headers.get(b"traceparent"), headers.get(b"tracestate"))
        if not sampling.sampled:
            command = self._command(deployment, sent, principal, sampling.unsampled)
            await _respond(send, await classify(command, self._ports), sampling.unsampled)
            return
        with server_span("POST", ROUTE, path, sampling.carrier) as opened:
            traceparent = telemetry.current_carrier().get("traceparent", "")
            command = self._command(deployment, sent, principal, traceparent)
            opened.set_attribute("millrace.request", command.request)
            answer = await classify(command, self._ports)
            opened.set_attributes({"millrace.deployment": deployment, "millrace.version": answer.version})
        await _respond(send, answer, traceparent)

    def _command(self, deployment: str, sent: Mapping[str, Any], principal: Principal, traceparent: str) -> Classify:
        for name in sent:
            if name not in _FIELDS:
                raise BadField(name=name[:100], problem="there is no such field", at=name[:100])
        if sent.get("deployment", deployment) != deployment:
            raise BadField(name="deployment", problem="the path names another one", at="deployment")
        texts = sent.get("texts")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise BadField(name="texts", problem="it must be a list of strings", at="texts")
        return Classify(
            tenant=principal.tenant,
            deployment=deployment,
            texts=texts,
            request=_optional(sent, "request_id") or self._ports.ids.new("req"),
            deadline=self._ports.clock.monotonic() + self._request_seconds,
            sticky_key=_optional(sent, "sticky_key"),
            traceparent=traceparent,
        )


def _optional(sent: Mapping[str, Any], name: str) -> str:
    value = sent.get(name) or ""
    if not isinstance(value, str):
        raise BadField(name=name, problem="it must be a string", at=name)
    return value


async def _respond(send: Send, answer: Answer, traceparent: str) -> None:
    headers = [
        JSON,
        (b"x-millrace-version", str(answer.version).encode()),
        (b"traceparent", traceparent.encode()),
    ]
    await respond(send, 200, orjson.dumps(answer), headers)
