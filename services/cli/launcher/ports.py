"""Ports on the loopback interface."""

import socket
from collections.abc import Collection
from typing import Final

from services.contracts.addresses import LOOPBACK

SEARCH: Final = 200


def is_free(port: int) -> bool:
    """Whether a listener could bind this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        # SO_REUSEADDR lets a bind pass beside a wildcard listener on some systems: nobody may answer either.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(0.2)
            return client.connect_ex((LOOPBACK, port)) != 0


def next_free(preferred: int, taken: Collection[int] = ()) -> int:
    """`preferred` or the first free port above it that is not in `taken`.

    Raises OSError when the next 200 are all in use.
    """
    for port in range(preferred, min(preferred + SEARCH, 65536)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port from {preferred} to {preferred + SEARCH - 1}")


def any_free(taken: Collection[int] = ()) -> int:
    """A port that the system says is free."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def answers(host: str, port: int, timeout_seconds: float = 0.5) -> bool:
    """Whether somebody accepts a connection there."""
    try:
        with socket.create_connection((host, port), timeout_seconds):
            return True
    except OSError:
        return False
