"""A response of JSON lines, which never ends silently."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import orjson
from fastapi.responses import JSONResponse
from google.protobuf.message import Message

from services.contracts.errors import MillraceError
from services.gateway.inbound.http.responses import refused
from services.gateway.inbound.http.wire_model import to_json
from services.kit.transport.http import Header, Receive, Scope, Send

NDJSON: Final[Header] = (b"content-type", b"application/x-ndjson")


class NdjsonResponse(JSONResponse):
    """Lines until they end or the client is gone. Its response model, which only a JSONResponse has, is a line's."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> None:
        self.status_code = 200
        self.background = None
        self.lines = lines
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what refused the first line."""
        sending = asyncio.create_task(self._send_lines(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send_lines(self, send: Send) -> None:
        """Before the first line an error is a status; after it the last line says it."""
        first = await anext(self.lines, b"")
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            async for line in self.lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
        except MillraceError as error:
            _, body, _ = refused(error)
            await send({"type": "http.response.body", "body": body + b"\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def to_line(message: Message) -> bytes:
    return orjson.dumps(to_json(message)) + b"\n"
