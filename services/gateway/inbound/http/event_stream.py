"""Answers that come in parts: Server-Sent Events over ASGI, and the end of the work when the client hangs up.

Source: the HTML standard, section 9.2, Server-sent events.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeVar

from services.contracts.errors import InternalError, MillraceError
from services.gateway.inbound.http.request_reader import ClientGone
from services.gateway.inbound.http.rest_app import AdmittedRequest
from services.kit.core.log import logger
from services.kit.transport.http import Header, Receive

T = TypeVar("T")
MEDIA: Final = "text/event-stream"
_HEADERS: Final[Sequence[Header]] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would gather the events
)

Events = AsyncGenerator[bytes, None]


def event(data: bytes, name: str = "") -> bytes:
    """One event; `data` is JSON, and so has no line break."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


async def while_connected(request: AdmittedRequest, work: Awaitable[T]) -> T:
    """What the work gives. It is cancelled when the client hangs up, and ClientGone raised.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def send_events(
    request: AdmittedRequest, events: Events, headers: Sequence[Header], error_event: Callable[[MillraceError], bytes]
) -> None:
    """Sends each event as it comes, and none ahead of the client. An error before the first one is raised; after it
    the stream ends with `error_event`. Raises ClientGone when the client hangs up: nothing of `events` runs on.
    """
    await while_connected(request, _send(request, events, headers, error_event))


async def _send(
    request: AdmittedRequest, events: Events, headers: Sequence[Header], error_event: Callable[[MillraceError], bytes]
) -> None:
    started = False
    try:
        async with aclosing(events):
            async for one in events:
                if not started:
                    start = {"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *headers]}
                    await request.send(start)
                    started = True
                await request.send({"type": "http.response.body", "body": one, "more_body": True})
    except MillraceError as error:
        if not started:
            raise
        await request.send({"type": "http.response.body", "body": error_event(error), "more_body": True})
    except Exception:
        if not started:
            raise
        logger.exception("a stream of events failed inside")
        await request.send({"type": "http.response.body", "body": error_event(InternalError()), "more_body": True})
    await request.send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
