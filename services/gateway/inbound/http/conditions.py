"""Entity tags and what is asked on condition of them (RFC 9110, sections 8.8.3 and 13.1).

The tag of one resource is a hash over its bytes, so it is strong; before it stands the generation, where the resource
has one, so that a tag also says what a change may rest on.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor

from services.contracts.errors import Malformed
from services.gateway.errors import NoCondition, UnknownETag
from services.gateway.inbound.http.routes import Route

EXPECTED: Final = "expected_generation"
_TAG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_WITH_GENERATION: Final = re.compile(r'"g(?P<generation>[0-9]{1,9})-[0-9a-f]{32}"')


def has_tag(route: Route) -> bool:
    """Reading one thing, whole."""
    return route.verb == "GET" and route.rpc.name.startswith("Get") and not route.rpc.server_streaming


def takes_condition(request: Descriptor) -> bool:
    return EXPECTED in request.fields_by_name


def entity_tag(answer: Any, body: bytes) -> str:
    """Of a message and what it is rendered to: equal for equal bytes, and for no others."""
    version = f"g{answer.generation}-" if "generation" in answer.DESCRIPTOR.fields_by_name else ""
    return f'"{version}{hashlib.sha256(body).hexdigest()[:32]}"'


def is_unchanged(headers: Mapping[bytes, str], tag: str) -> bool:
    """Whether the client said that it has this already; a weak tag of it counts, as section 13.1.2 has it."""
    sent = headers.get(b"if-none-match", "")
    return sent.strip() == "*" or tag in _TAG.findall(sent)


def expected_generation(route: Route, headers: Mapping[bytes, str]) -> int | None:
    """What `If-Match` asks for, none without one. Raises NoCondition, Malformed or UnknownETag."""
    sent = headers.get(b"if-match")
    if sent is None:
        return None
    if route.verb == "GET":
        return None
    if not takes_condition(route.request):
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
