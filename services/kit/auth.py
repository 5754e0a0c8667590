"""API keys: 256 random bits with a prefix, stored as HMAC-SHA256 with a pepper, compared in constant time.

The keys folder holds `keyring.json` (hashes), `pepper`, the first `api-key`, the `service-key` with which
services call each other, and the pair that signs artifacts. All of it is made once, readable by its owner alone.
"""

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.contracts.errors import Unauthenticated
from services.contracts.names import DEFAULT_TENANT
from services.kit.clock import Clock
from services.kit.log import logger

PREFIX: Final = "mr"
API_KEY_FILE: Final = "api-key"
SERVICE_KEY_FILE: Final = "service-key"
PEPPER_FILE: Final = "pepper"
KEYRING_FILE: Final = "keyring.json"
SIGNING_KEY_FILE: Final = "signing.pem"
VERIFYING_KEY_FILE: Final = "signing.pub.pem"
REMEMBERED: Final = 1_000
RELOAD_SECONDS: Final = 1.0


class KeyRole(StrEnum):
    VIEWER = "viewer"
    CLIENT = "client"
    OPERATOR = "operator"
    ADMIN = "admin"
    SERVICE = "service"


@dataclass(frozen=True)
class Principal:
    """Who calls, as a key proved it."""

    key_id: str
    role: KeyRole
    tenant: str

    @property
    def actor(self) -> str:
        """How the history names this caller."""
        return f"{self.role}:{self.key_id}"


present_principal: ContextVar[Principal | None] = ContextVar("present_principal", default=None)


def ensure_keys(folder: Path) -> None:
    """Makes whatever is missing; safe when several services start at once."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder):
        if not (folder / SIGNING_KEY_FILE).exists():
            _make_signing_pair(folder)
        if (folder / KEYRING_FILE).exists():
            return
        pepper = secrets.token_bytes(32)
        _write_private(folder / PEPPER_FILE, pepper.hex().encode())
        entries = []
        for name, role in ((API_KEY_FILE, KeyRole.ADMIN), (SERVICE_KEY_FILE, KeyRole.SERVICE)):
            key_id, key = _new_key()
            _write_private(folder / name, key.encode())
            entries.append({"id": key_id, "hash": _hash(pepper, key), "role": role, "tenant": DEFAULT_TENANT})
        _write_private(folder / KEYRING_FILE, orjson.dumps({"keys": entries}, option=orjson.OPT_INDENT_2))


class Keyring:
    """Tells who a key belongs to; follows changes of its file within a second.

    While the file cannot be read, what it said before holds. Raises the reason only when that is so at the start.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._file = folder / KEYRING_FILE
        self._pepper = bytes.fromhex((folder / PEPPER_FILE).read_text().strip())
        self._clock = clock
        self._by_id: dict[str, tuple[str, Principal]] = {}
        self._remembered: OrderedDict[str, Principal] = OrderedDict()
        self._stamp = 0
        self._look_again = 0.0
        self._read_file()

    def authenticate(self, authorization: str | None) -> Principal:
        """From an `Authorization: Bearer KEY` header. Raises Unauthenticated."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated
        self._follow_file()
        if (known := self._remembered.get(key)) is not None:
            return known
        parts = key.split("_")
        stored = self._by_id.get(parts[1]) if len(parts) == 3 and parts[0] == PREFIX else None
        expected, principal = stored or ("", None)
        if not hmac.compare_digest(expected, _hash(self._pepper, key)) or principal is None:
            raise Unauthenticated
        self._remembered[key] = principal
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return principal

    def _follow_file(self) -> None:
        if self._clock.monotonic() < self._look_again:
            return
        self._look_again = self._clock.monotonic() + RELOAD_SECONDS
        try:
            self._read_file()
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.error("the keyring cannot be read, its former keys hold: %s", error)

    def _read_file(self) -> None:
        stamp = self._file.stat().st_mtime_ns
        if stamp == self._stamp:
            return
        self._by_id = {
            entry["id"]: (entry["hash"], Principal(entry["id"], KeyRole(entry["role"]), entry["tenant"]))
            for entry in orjson.loads(self._file.read_bytes())["keys"]
        }
        self._stamp = stamp
        self._remembered.clear()


def read_key(folder: Path, name: str = SERVICE_KEY_FILE) -> str:
    return (folder / name).read_text().strip()


def _new_key() -> tuple[str, str]:
    key_id = secrets.token_hex(4)
    secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
    return key_id, f"{PREFIX}_{key_id}_{secret}"


def _hash(pepper: bytes, key: str) -> str:
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def _make_signing_pair(folder: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_private(folder / VERIFYING_KEY_FILE, public)
    secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(folder / SIGNING_KEY_FILE, secret)


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
