"""Pages of a listing: how many rows, and a token for the page after them.

A token is opaque and belongs to the listing and the filters that it was made for. It holds the mark of the last row
that was shown, so rows that are added meanwhile neither repeat a row nor hide one.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from services.contracts.errors import Invalid
from services.kit.transport.grpc_requests import page_size, within_column

T = TypeVar("T")

_PAGING: Final = ("page", "page_size", "page_token")
_CHECK_BYTES: Final = 8


class BadPageToken(Invalid):
    """The page token does not belong to this listing and these filters."""

    field = "page_token"
    hint = "send next_page_token of the page before with the same filters, or none to begin anew"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What was asked for: rows after the mark `after`, which is empty for the first page, and `size` of them."""

    size: int
    after: str
    listing: bytes

    @property
    def limit(self) -> int:
        """How many rows to read: one more tells whether a page follows."""
        return self.size + 1

    @property
    def number(self) -> int:
        """The mark of a listing that goes by numbers; 0 on the first page. Raises BadPageToken."""
        if not self.after:
            return 0
        if not (self.after.isascii() and self.after.isdecimal() and len(self.after) <= 10):
            raise BadPageToken
        return within_column(int(self.after))

    def slice(self, rows: Sequence[T], cursor_of: Callable[[T], object]) -> tuple[Sequence[T], str]:
        """The page, and the token of the next one; empty on the last page. `rows` are at most `limit`."""
        if len(rows) <= self.size:
            return rows, ""
        page = rows[: self.size]
        return page, self._token(str(cursor_of(page[-1])))

    def _token(self, after: str) -> str:
        return base64.urlsafe_b64encode(_check(self.listing, after) + after.encode()).decode().rstrip("=")


def paging(method: str, request: Message) -> PageRequest:
    """From a request that has `page`, or `page_size` and `page_token`, itself. Raises BadPageToken."""
    page: Any = getattr(request, "page", request)
    filters = type(request)()
    filters.CopyFrom(request)
    for name in _PAGING:
        if name in request.DESCRIPTOR.fields_by_name:
            filters.ClearField(name)
    listing = method.encode() + b"\n" + filters.SerializeToString(deterministic=True)
    return PageRequest(page_size(page.page_size), _read(page.page_token, listing), listing)


def _read(token: str, listing: bytes) -> str:
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = raw[_CHECK_BYTES:].decode()
    except (binascii.Error, ValueError) as error:
        raise BadPageToken from error
    if not after.isprintable() or not after or raw[:_CHECK_BYTES] != _check(listing, after):
        raise BadPageToken
    return after


def _check(listing: bytes, after: str) -> bytes:
    """Against mistakes, not against malice: whatever a token says, the listing shows the caller's own rows."""
    return hashlib.blake2b(after.encode(), digest_size=_CHECK_BYTES, key=hashlib.sha256(listing).digest()).digest()
