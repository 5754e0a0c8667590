"""A refusal on a stream, both ways: the one place that knows both forms."""

from typing import Final

from services.contracts.errors import ErrorBody, Kind, MillraceError, Relayed
from services.contracts.rpc import inference_pb2

_KINDS: Final = frozenset(Kind)


def to_failure(error: MillraceError) -> inference_pb2.Failure:
    """With the seconds after which it may have passed by itself; 0 where it will not."""
    body = error.body()
    return inference_pb2.Failure(
        kind=error.kind.value,
        code=body.code,
        message=body.message,
        field=body.field or "",
        hint=body.hint or "",
        retry_after_seconds=error.retry_after or 0.0,
    )


def from_failure(failure: inference_pb2.Failure) -> MillraceError:
    """As the other side raised it; a kind that is not known here is an error inside."""
    kind = Kind(failure.kind) if failure.kind in _KINDS else Kind.INTERNAL
    body = ErrorBody(
        code=failure.code or kind.value,
        message=failure.message,
        field=failure.field or None,
        hint=failure.hint or None,
        retry_after_seconds=failure.retry_after_seconds or None,
    )
    return Relayed(kind, body)
