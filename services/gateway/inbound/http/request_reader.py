"""Reading a request's head and body within limits of size and time."""

import asyncio
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.contracts.errors import Malformed
from services.gateway.errors import BodyTooLarge, SlowBody, UnsupportedMedia
from services.kit.transport.http import Receive, Scope

DISCARD_BYTES: Final = 16 * 1024 * 1024
DISCARD_SECONDS: Final = 1.0
WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
"""By content-encoding, zlib's number for its header and trailer: HTTP's "deflate" is the zlib format."""


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


@dataclass(frozen=True)
class BodyLimits:
    bytes: int
    seconds: float


def read_headers(scope: Scope) -> dict[bytes, str]:
    """By lower-case name; the first one counts where a name comes twice."""
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name, value.decode("latin-1"))
    return headers


async def read_json(receive: Receive, headers: Mapping[bytes, str], limits: BodyLimits) -> dict[str, Any]:
    """The body's JSON object; an empty body is an empty object.

    Raises UnsupportedMedia, BodyTooLarge, SlowBody or Malformed; ClientGone when there is nobody to tell.
    """
    body = await _received(receive, headers, limits)
    if not body:
        return {}
    media = headers.get(b"content-type", "")
    if media != "application/json" and media.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia(header="content-type", value=media[:100], field="content-type")
    try:
        data = orjson.loads(_decompressed(body, headers, limits))
    except orjson.JSONDecodeError as error:
        raise Malformed(problem=f"the body is not JSON ({error.msg})", field="body") from error
    if not isinstance(data, dict):
        raise Malformed(problem="the body must be a JSON object", field="body")
    return data


async def read_bytes(receive: Receive, headers: Mapping[bytes, str], limits: BodyLimits) -> bytes:
    """The whole body, uncompressed, of whatever media type.

    Raises UnsupportedMedia, BodyTooLarge, SlowBody or Malformed; ClientGone when there is nobody to tell.
    """
    body = await _received(receive, headers, limits)
    return _decompressed(body, headers, limits) if body else body


async def _received(receive: Receive, headers: Mapping[bytes, str], limits: BodyLimits) -> bytes:
    length = headers.get(b"content-length", "0")
    if not length.isdigit() or int(length) > limits.bytes:
        raise BodyTooLarge(limit=limits.bytes, field="body")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > limits.bytes:
                    raise BodyTooLarge(limit=limits.bytes, field="body")
                chunks.append(chunk)
                if not message.get("more_body"):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError as error:
        raise SlowBody(seconds=limits.seconds, field="body") from error


async def discard(scope: Scope, receive: Receive) -> None:
    """Reads on for a moment: a client that is still sending when the connection closes never sees the answer."""
    if any(name == b"expect" for name, _ in scope["headers"]):
        return  # it waits to be told, and has sent nothing
    left = DISCARD_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return


def _decompressed(body: bytes, headers: Mapping[bytes, str], limits: BodyLimits) -> bytes:
    """Never inflates past the limit, whatever the compressed size promises."""
    encoding = headers.get(b"content-encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in WINDOW_BITS:
        raise UnsupportedMedia(header="content-encoding", value=encoding[:100], field="content-encoding")
    inflater = zlib.decompressobj(WINDOW_BITS[encoding])
    try:
        inflated = inflater.decompress(body, limits.bytes + 1)
    except zlib.error as error:
        raise Malformed(problem=f"the body is not {encoding}", field="body") from error
    if len(inflated) > limits.bytes:
        raise BodyTooLarge(limit=limits.bytes, field="body")
    if not inflater.eof:
        raise Malformed(problem=f"the {encoding} body is cut short", field="body")
    return inflated
