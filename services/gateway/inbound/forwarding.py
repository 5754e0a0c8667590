"""What goes along with a call that is passed on to the service that owns it."""

from services.kit.core.idempotency import FIELD, BadKey


def passed_on(key: str) -> list[tuple[str, str]]:
    """The idempotency key as metadata; nothing without one. Raises BadKey on what metadata cannot carry."""
    if not key:
        return []
    if not (key.isascii() and key.isprintable()):
        raise BadKey(problem="it holds characters beyond printable ASCII")
    return [(FIELD, key)]
