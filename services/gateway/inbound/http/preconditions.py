"""Entity tags and what is asked on condition of them (RFC 9110, sections 8.8.3 and 13.1).

The tag of one resource is a hash over its bytes, so it is strong; before it stands the generation, where the resource
has one, so that a tag also says what a change may rest on.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi.responses import JSONResponse

from services.contracts.errors import Malformed
from services.gateway.errors import NoCondition, UnknownETag
from services.kit.transport.http import Receive, Scope, Send, header

EXPECTED: Final = "expected_generation"
_TAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_WITH_GENERATION: Final = re.compile(r'"g(?P<generation>[0-9]{1,9})-[0-9a-f]{32}"')


class EntityResponse(JSONResponse):
    """One resource with its tag; 304 without a body for a client that has it already."""

    def render(self, content: Any) -> bytes:
        body = orjson.dumps(content)
        self.tag = entity_tag(content.get("generation"), body)
        return body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers["etag"] = self.tag
        self.headers["cache-control"] = "private, no-cache"
        if is_unchanged(header(scope, b"if-none-match") or "", self.tag):
            self.status_code, self.body = 304, b""
            del self.headers["content-length"], self.headers["content-type"]
        await super().__call__(scope, receive, send)


def entity_tag(generation: int | None, body: bytes) -> str:
    """Equal for equal bytes, and for no others."""
    version = f"g{generation}-" if generation is not None else ""
    return f'"{version}{hashlib.sha256(body).hexdigest()[:32]}"'


def is_unchanged(if_none_match: str, tag: str) -> bool:
    """Whether the client said that it has this already; a weak tag of it counts, as section 13.1.2 has it."""
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)


def expected_generation(headers: Mapping[bytes, str], *, takes_condition: bool) -> int | None:
    """What `If-Match` asks for, none without one. Raises NoCondition, Malformed or UnknownETag."""
    sent = headers.get(b"if-match")
    if sent is None:
        return None
    if not takes_condition:
        raise NoCondition
    tag = sent.strip()
    if tag.startswith("W/"):
        raise UnknownETag(tag=tag[:100])  # a weak tag never matches here
    if not _TAG.fullmatch(tag):
        raise Malformed(problem="send the ETag of the deployment, and one of them", field="if-match")
    hit = _WITH_GENERATION.fullmatch(tag)
    if hit is None:
        raise UnknownETag(tag=tag[:100])
    return int(hit["generation"])
