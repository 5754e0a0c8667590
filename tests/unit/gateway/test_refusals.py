"""Every refusal of the gateway that may pass by itself says when to try again, on every door."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from google.rpc import error_details_pb2

from services.contracts import errors as contracts
from services.contracts.errors import ErrorBody, Kind, MillraceError, Relayed
from services.gateway import errors as gateway
from services.gateway.inbound.http.responses import refused
from services.kit.identity import auth, keys
from services.kit.transport import http as kit_http
from services.kit.transport.rpc import rich_status

PASSING = {429, 503}


def every_refusal() -> Iterator[MillraceError]:
    """One of each class that the gateway can raise, without a time of its own; and what others tell it."""
    classes = {
        member
        for module in (contracts, gateway, auth, keys, kit_http)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, MillraceError) and member is not Relayed
    }
    for error in sorted(classes, key=lambda one: one.__name__):
        facts: dict[str, Any] = dict.fromkeys(names_in(error), 7)
        yield error(**facts)
    for kind in Kind:
        yield Relayed(kind, ErrorBody(code="x", message="another service said so"))


def names_in(error: type[MillraceError]) -> set[str]:
    import string

    texts = (error.__doc__ or "", error.hint or "")
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("error", list(every_refusal()), ids=lambda one: f"{type(one).__name__}-{one.kind}")
def test_what_may_pass_says_when_to_try_again(error: MillraceError) -> None:
    status, _, headers = refused(error)
    response = dict(headers).get(b"retry-after")
    delays = [detail for detail in rich_status(error).details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert (response is not None) == (len(delays) == 1)
    if status in PASSING:
        assert response is not None
        assert int(response) >= 1
    if status in {400, 401, 403, 404, 409, 413, 415, 422}:
        assert response is None


def test_the_classes_with_such_a_status_are_really_among_them() -> None:
    names = {type(error).__name__ for error in every_refusal() if refused(error)[0] in PASSING}
    assert {"RateLimitExceeded", "ConcurrencyLimitExceeded", "TokenLimitExceeded", "ReplicaFull", "OutboxFull"} <= names
    assert {"DeploymentNotReady", "ServiceSilent", "KeyringBusy", "Relayed"} <= names


@pytest.mark.parametrize(("seconds", "header"), [(0.01, b"1"), (1.0, b"1"), (1.2, b"2"), (59.5, b"60")])
def test_nobody_is_sent_away_for_too_short_a_time(seconds: float, header: bytes) -> None:
    error = gateway.RateLimitExceeded(limit="1", burst=1, retry_after_seconds=seconds)
    assert dict(refused(error)[2])[b"retry-after"] == header
    assert error.body().retry_after_seconds == seconds
