"""One HTTP request by hand: an HTTP client would be most of the supervisor's memory."""

import asyncio
from typing import Final

LIMIT_SECONDS: Final = 2.0


async def status_of(address: str, path: str, limit_seconds: float = LIMIT_SECONDS) -> int:
    """The status code of GET http://address/path; 0 when nobody answers within the limit."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(limit_seconds):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    words = line.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
