"""The hot paths: `POST /api/v1/deployments/{deployment}/classify` and `/embed`, from ASGI straight to the handler."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from services.contracts.errors import BadField
from services.gateway.domain.requests import Answer, Classify, check_name
from services.gateway.handlers import classify
from services.gateway.inbound.http.answers import server_span
from services.gateway.inbound.http.body import BodyLimits, read_json
from services.gateway.inbound.http.door import Request
from services.gateway.inbound.sampling import Sampler
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.transport.http import JSON, Send, respond

PREFIX: Final = "/api/v1/deployments/"
METHODS: Final = {
    "classify": "/millrace.v1.InferenceService/Classify",
    "embed": "/millrace.v1.InferenceService/Embed",
}
"""The last segment of a hot path, and the gRPC method it stands for."""
_COMMON: Final = frozenset({"deployment", "texts", "request_id", "sticky_key", "version", "whole_texts"})
_FIELDS: Final = {"classify": _COMMON | {"with_embeddings"}, "embed": _COMMON}


def hot_path(verb: str, path: str) -> tuple[str, str] | None:
    """Deployment and verb of a hot path; None for any other."""
    if verb != "POST" or not path.startswith(PREFIX):
        return None
    deployment, _, action = path[len(PREFIX) :].partition("/")
    return (deployment, action) if action in METHODS else None


class InferenceDoor:
    """Translates; the rules are the handler's."""

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits

    async def serve(self, deployment: str, action: str, request: Request) -> None:
        headers, send = request.headers, request.send
        check_name(deployment, "deployment")
        sent = await read_json(request.receive, headers, self._limits)
        for name in sent:
            if name not in _FIELDS[action]:
                raise BadField(name=name[:100], problem="there is no such field", at=name[:100])
        sampling = self._sampler.decide(headers.get(b"traceparent"), headers.get(b"tracestate"))
        if not sampling.sampled:
            command = self._command(deployment, action, sent, request, sampling.unsampled)
            await _respond(send, action, await classify(command, self._ports), sampling.unsampled)
            return
        route, path = f"{PREFIX}{{deployment}}/{action}", f"{PREFIX}{deployment}/{action}"
        with server_span("POST", route, path, sampling.carrier, actor=request.principal.actor) as opened:
            traceparent = telemetry.current_carrier().get("traceparent", "")
            command = self._command(deployment, action, sent, request, traceparent)
            opened.set_attribute("millrace.request", command.request)
            answer = await classify(command, self._ports)
            opened.set_attributes({"millrace.deployment": deployment, "millrace.version": answer.version})
        await _respond(send, action, answer, traceparent)

    def _command(
        self, deployment: str, action: str, sent: Mapping[str, Any], request: Request, traceparent: str
    ) -> Classify:
        if sent.get("deployment", deployment) != deployment:
            raise BadField(name="deployment", problem="the path names another one", at="deployment")
        texts = sent.get("texts")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise BadField(name="texts", problem="it must be a list of strings", at="texts")
        return Classify(
            tenant=request.principal.tenant,
            deployment=deployment,
            texts=texts,
            request=_text(sent, "request_id") or self._ports.ids.new("req"),
            deadline=request.deadline,
            sticky_key=_text(sent, "sticky_key"),
            traceparent=traceparent,
            version=_number(sent, "version"),
            with_embeddings=action == "embed" or _flag(sent, "with_embeddings"),
            whole=_flag(sent, "whole_texts"),
        )


def _text(sent: Mapping[str, Any], name: str) -> str:
    value = sent.get(name) or ""
    if not isinstance(value, str):
        raise BadField(name=name, problem="it must be a string", at=name)
    return value


def _number(sent: Mapping[str, Any], name: str) -> int:
    value = sent.get(name) or 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise BadField(name=name, problem="it must be a whole number from 0 to 4294967295", at=name)
    return value


def _flag(sent: Mapping[str, Any], name: str) -> bool:
    value = sent.get(name) or False
    if not isinstance(value, bool):
        raise BadField(name=name, problem="it must be true or false", at=name)
    return value


async def _respond(send: Send, action: str, answer: Answer, traceparent: str) -> None:
    told: dict[str, Any] = {
        "request_id": answer.request_id,
        "deployment": answer.deployment,
        "model": answer.model,
        "version": answer.version,
        "tokens": answer.tokens,
    }
    if action == "classify":
        told["predictions"] = answer.predictions
    if answer.embeddings:
        told["embeddings"] = [{"values": values.tolist()} for values in answer.embeddings]
    headers = [
        JSON,
        (b"x-millrace-version", str(answer.version).encode()),
        (b"traceparent", traceparent.encode()),
    ]
    await respond(send, 200, orjson.dumps(told), headers)
