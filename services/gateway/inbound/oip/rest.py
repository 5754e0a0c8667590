"""The REST API of the protocol, under `/v2`. Its errors are `{"error": "words"}`, as its clients want them."""

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import orjson

from services.contracts.errors import Kind, MillraceError
from services.gateway.domain.requests import Answer
from services.gateway.errors import ExtensionNotOffered
from services.gateway.handlers import answer
from services.gateway.inbound.http.api import GatewayApi
from services.gateway.inbound.http.request_reader import WINDOW_BITS, BodyLimits
from services.gateway.inbound.http.responses import refused, server_span
from services.gateway.inbound.http.rest_app import AdmittedRequest, Health, read_path
from services.gateway.inbound.oip.infer import InferRequest, predict_command, words
from services.gateway.inbound.oip.paths import INFER, LIVE, READY
from services.gateway.inbound.oip.rest_converters import HEAD_LENGTH, read_body, read_request, write_answer
from services.gateway.inbound.sampling import Sampler, traced
from services.gateway.ports import Ports
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, Header, respond

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
ROUTE: Final = "/v2/models/{model}/infer"
VERSION_ROUTE: Final = "/v2/models/{model}/versions/{version}/infer"
OCTETS: Final[Header] = (b"content-type", b"application/octet-stream")
COMPRESSED_FROM_BYTES: Final = 1_024


class OpenInferenceApi:
    """`/v2/...`: inference by raw ASGI, everything else by FastAPI; health aside, which the edge itself has open."""

    def __init__(self, ports: Ports, sampler: Sampler, limits: BodyLimits, api: GatewayApi) -> None:
        self._ports = ports
        self._sampler = sampler
        self._limits = limits
        self._api = api

    async def serve(self, request: AdmittedRequest) -> None:
        hit = INFER.fullmatch(read_path(request.scope)) if request.verb == "POST" else None
        if hit is not None:
            await self._infer(hit["model"], hit["version"] or "", request)
        else:
            await self._api.serve(request, self.refused)

    def refused(self, error: MillraceError) -> tuple[int, bytes, list[Header]]:
        status, _, headers = refused(error)
        if error.kind is Kind.INVALID:
            status = 400
        elif isinstance(error, ExtensionNotOffered):
            status = 501
        return status, orjson.dumps({"error": words(error)}), headers

    async def _infer(self, model: str, version: str, request: AdmittedRequest) -> None:
        check_role(request.principal, METHOD)
        body = await read_body(request, self._limits)
        infer_request = read_request(body, request.headers.get(HEAD_LENGTH), model=model, version=version)
        route = VERSION_ROUTE if version else ROUTE
        sampling = self._sampler.decide(request.headers.get(b"traceparent"), request.headers.get(b"tracestate"))
        actor, carrier = request.principal.actor, sampling.carrier
        with traced(sampling, partial(server_span, "POST", route, request.path, carrier, actor=actor)) as span:
            traceparent, now = telemetry.current_traceparent(), self._ports.clock.monotonic()
            command = predict_command(
                infer_request,
                tenant=request.principal.tenant,
                ids=self._ports.ids,
                now=now,
                seconds=request.deadline - now,
            )
            answered = await answer(command, self._ports)
            facts = {"millrace.request": answered.request_id, "millrace.deployment": model}
            span.set_attributes({**facts, "millrace.version": answered.version})
        await _respond(request, infer_request, answered, traceparent)


def health(is_ready: Callable[[], bool]) -> Mapping[str, Health]:
    """What the edge answers to anyone."""

    def ready() -> tuple[int, bytes]:
        state = is_ready()
        return 200 if state else 400, orjson.dumps({"ready": state})

    return {LIVE: lambda: (200, b'{"live":true}'), READY: ready}


async def _respond(request: AdmittedRequest, infer_request: InferRequest, answer: Answer, traceparent: str) -> None:
    body, head_length = write_answer(answer, infer_request)
    headers = [
        (b"x-millrace-version", str(answer.version).encode()),
        (b"traceparent", traceparent.encode()),
        JSON if head_length is None else OCTETS,
    ]
    if head_length is not None:
        headers.append((HEAD_LENGTH, str(head_length).encode()))
    encoding = chosen_encoding(request.headers.get(b"accept-encoding", ""))
    if encoding and len(body) >= COMPRESSED_FROM_BYTES:
        deflater = zlib.compressobj(1, zlib.DEFLATED, WINDOW_BITS[encoding])
        body = deflater.compress(body) + deflater.flush()
        headers += [(b"content-encoding", encoding.encode()), (b"vary", b"accept-encoding")]
    await respond(request.send, 200, body, headers)


def chosen_encoding(accepted: str) -> str:
    """Of an Accept-Encoding header: the encoding of ours that it likes best, or nothing."""
    best, best_weight = "", 0.0
    for part in accepted.split(","):
        name, _, quality = part.strip().partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=")) if quality else 1.0
        except ValueError:
            continue
        if name.strip().lower() in WINDOW_BITS and weight > best_weight:
            best, best_weight = name.strip().lower(), weight
    return best
