"""Idempotency keys: a writing call that is repeated with its key has its effect once.

The response commits with the effect, in one transaction, so a repetition after a crash finds both or neither.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.contracts.errors import Invalid

RETENTION: Final = timedelta(hours=48)
"""After that a key counts as new."""
MAX_KEY_CHARS: Final = 200
FIELD: Final = "idempotency-key"


class KeyReused(Invalid):
    """This idempotency key was used before, with another request."""

    field = FIELD
    hint = "send a new key with each new request, and the same key only with the same request"


class BadKey(Invalid):
    """The idempotency key is not valid: {problem}."""

    field = FIELD
    hint = "any printable text of at most 200 characters will do; a UUID is customary"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What makes asking twice harmless: the caller's key, and the fingerprint of what was asked with it."""

    tenant: str
    key: str
    fingerprint: str


def bind_key(tenant: str, key: str, *request: bytes) -> IdempotencyKey | None:
    """None without a key: then each call counts. Raises BadKey.

    `asked` is what has to be equal for a repetition: names, which hold no line break, and last the request itself. The
    gateway has made its fingerprints so since before other rooms had any; keys in use keep their meaning.
    """
    if not key:
        return None
    if len(key) > MAX_KEY_CHARS:
        raise BadKey(problem=f"it has more than {MAX_KEY_CHARS} characters")
    if not key.isprintable():
        raise BadKey(problem="it holds control characters")
    return IdempotencyKey(tenant, key, hashlib.sha256(b"\n".join(request)).hexdigest())
