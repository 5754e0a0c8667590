"""`POST /api/v1/datasets/{dataset}/content`: a raw body of any length, compressed or not, to the upload store."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
from pydantic import ValidationError

from services.contracts.errors import Malformed, MillraceError
from services.contracts.rpc import gateway_pb2
from services.gateway.domain.requests import Caller, check_name
from services.gateway.domain.uploads import FORMATS, MEDIA
from services.gateway.errors import BodyTooLarge, UnsupportedMedia
from services.gateway.handlers import upload_dataset
from services.gateway.inbound import converters
from services.gateway.inbound.grpc_services import GATEWAY
from services.gateway.inbound.http.calls import method_path
from services.gateway.inbound.http.models.gateway import UploadQuery
from services.gateway.inbound.http.ndjson import NDJSON
from services.gateway.inbound.http.problems import first_problem
from services.gateway.inbound.http.query import check_names, read_pairs
from services.gateway.inbound.http.request_reader import WINDOW_BITS, ClientGone
from services.gateway.inbound.http.responses import refused, server_span, trace_parent
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.gateway.inbound.http.wire_model import to_json
from services.gateway.inbound.uploading import Pace, UploadTimeouts
from services.gateway.ports import Ports
from services.gateway.telemetry import HTTP_REFUSED
from services.kit.core import telemetry
from services.kit.identity.auth import check_role
from services.kit.transport.http import JSON, Header, Receive, Scope, respond

METHOD: Final = GATEWAY.methods_by_name["UploadDataset"]
PATH: Final = "/api/v1/datasets/{dataset}/content"
CREATED: Final = 201
PIECE_BYTES: Final = 256 * 1024
"""At most this much is inflated at once: between two pieces the loop serves others."""
LINGER_SECONDS: Final = 1.0
CLOSE: Final[Header] = (b"connection", b"close")
ANY_MEDIA: Final = ("", "application/octet-stream")
HINT: Final = "send application/x-ndjson, text/csv or application/octet-stream; as it is, with gzip or with deflate"


class UploadApp:
    """Translates; the rules are the handler's.

    A client that accepts `application/x-ndjson` hears lines of `{"progress": ...}`, then one of `{"uploaded": ...}`;
    what is refused after the first line is its last line.
    """

    def __init__(self, ports: Ports, timeouts: UploadTimeouts) -> None:
        self._ports = ports
        self._timeouts = timeouts

    async def serve(self, request: AdmittedRequest) -> None:
        answer = _Answer(request)
        body = _Body(request.receive, self._timeouts)
        try:
            await self._take(request, body, answer)
        except MillraceError as error:
            HTTP_REFUSED.add(1, tenant=request.principal.tenant, code=error.code)
            await answer.refuse(error, body)

    async def _take(self, request: AdmittedRequest, body: "_Body", answer: "_Answer") -> None:
        path, headers = request.scope["path"], request.headers
        check_role(request.principal, method_path(METHOD))
        dataset: str = request.scope["path_params"]["dataset"]
        check_name(dataset, "dataset")
        with server_span("POST", PATH, path, trace_parent(headers), actor=request.principal.actor, status=CREATED):
            header = _header(request.scope, dataset)
            header.format = _format(headers, header.format)
            self._check_length(headers)
            content = converters.upload_header(header)
            caller = Caller(
                tenant=request.principal.tenant,
                idempotency_key=headers.get(b"idempotency-key", ""),
                actor=request.principal.actor,
            )
            pace = Pace(self._ports.clock, answer.report)
            chunks = _decoded(body.chunks(), headers)
            async with self._timeouts.time_limit():
                uploaded = await upload_dataset(content, chunks, caller, self._ports, pace.report)
            await answer.end(converters.uploaded(uploaded))

    def _check_length(self, headers: Mapping[bytes, str]) -> None:
        """What is announced as too long need not be read; a compressed body is no longer than what it holds."""
        length, limit = headers.get(b"content-length", "0"), self._ports.policy.upload_limit_bytes
        if not length.isdigit() or int(length) > limit:
            raise BodyTooLarge(limit=limit, field="body")


class _Body:
    """The parts of the request's body as they come."""

    def __init__(self, receive: Receive, timeouts: UploadTimeouts) -> None:
        self._receive = receive
        self._timeouts = timeouts
        self.begun = False
        self.complete = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises StalledUpload; ClientGone when there is nobody to tell."""
        while not self.complete:
            self.begun = True
            message = await self._timeouts.part(self._receive())
            if message["type"] == "http.disconnect":
                raise ClientGone
            self.complete = not message.get("more_body")
            if chunk := message.get("body", b""):
                yield chunk

    async def linger(self) -> None:
        """Reads on for a moment: a connection that closes while the client is sending takes its answer with it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.complete:
                    self.complete = not (await self._receive()).get("more_body")


class _Answer:
    """One JSON document, or lines of progress before it."""

    def __init__(self, request: AdmittedRequest) -> None:
        self._send = request.send
        self._in_lines = "application/x-ndjson" in request.headers.get(b"accept", "").lower()
        self._expects_continue = b"expect" in request.headers
        self._begun = False

    async def report(self, received_bytes: int) -> None:
        if self._in_lines:
            await self._line({"progress": {"received_bytes": received_bytes}})

    async def end(self, uploaded: gateway_pb2.UploadedDataset) -> None:
        if not self._in_lines:
            await respond(self._send, CREATED, orjson.dumps(to_json(uploaded)), [JSON, _trace()])
            return
        await self._line({"uploaded": to_json(uploaded)})
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: MillraceError, body: _Body) -> None:
        """A client that is still sending is told first, and its connection is closed then."""
        status, content, headers = refused(error)
        if not self._begun:
            headers = [*headers, (b"content-length", str(len(content)).encode())]
            if not body.complete and CLOSE not in headers:
                headers.append(CLOSE)
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
        else:
            content += b"\n"
        await self._send({"type": "http.response.body", "body": content, "more_body": True})
        if body.begun or not self._expects_continue:
            await body.linger()
        await self._send({"type": "http.response.body", "body": b""})

    async def _line(self, content: dict[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            # The rest of a body that is refused after this is not read, so the connection ends with the answer.
            headers = [NDJSON, _trace(), CLOSE]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": orjson.dumps(content) + b"\n", "more_body": True})


def _trace() -> Header:
    return b"traceparent", telemetry.current_carrier().get("traceparent", "").encode()


def _header(scope: Scope, dataset: str) -> gateway_pb2.UploadHeader:
    """Raises BadField or Malformed."""
    pairs = read_pairs(scope)
    check_names(pairs, UploadQuery)
    try:
        return UploadQuery.model_validate(dict(pairs)).to(gateway_pb2.UploadHeader, dataset=dataset)
    except ValidationError as error:
        raise first_problem([{**one, "loc": ("query", *one["loc"])} for one in error.errors()]) from error


def _format(headers: Mapping[bytes, str], form: str) -> str:
    """By the query, else by the media type. Raises UnsupportedMedia when they contradict each other."""
    media = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if media in ANY_MEDIA:
        return form or FORMATS[0]
    by_media = next((name for name, types in MEDIA.items() if media in types), None)
    if by_media is None or (form in FORMATS and form != by_media):
        raise UnsupportedMedia(header="content-type", value=media[:100], field="content-type", hint=HINT)
    return form or by_media


def _decoded(chunks: AsyncIterator[bytes], headers: Mapping[bytes, str]) -> AsyncIterator[bytes]:
    encoding = headers.get(b"content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return chunks
    if encoding not in WINDOW_BITS:
        raise UnsupportedMedia(header="content-encoding", value=encoding[:100], field="content-encoding", hint=HINT)
    return _inflated(chunks, WINDOW_BITS[encoding])


async def _inflated(chunks: AsyncIterator[bytes], window_bits: int) -> AsyncIterator[bytes]:
    """Piece by piece, so that a small body never becomes a large one in memory. Raises Malformed."""
    inflater, begun = zlib.decompressobj(window_bits), False
    async for chunk in chunks:
        left = chunk
        while left:
            if inflater.eof:  # one gzip file after another is one gzip file
                inflater = zlib.decompressobj(window_bits)
            begun = True
            try:
                piece = inflater.decompress(left, PIECE_BYTES)
            except zlib.error as error:
                raise Malformed(problem="the body is not what its content-encoding says", field="body") from error
            left = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if piece:
                yield piece
    if begun and not inflater.eof:
        raise Malformed(problem="the compressed body is cut short", field="body")
