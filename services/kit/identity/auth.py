"""API keys: 256 random bits with a prefix, stored as HMAC-SHA256 with a pepper, compared in constant time.

The keys folder holds `keyring.json` (hashes), `pepper`, the first `api-key`, the `service-key` with which
services call each other, and the pair that signs artifacts. All of it is made once, readable by its owner alone.
`used/` has an empty file a key, whose time is that of its last use. `kit/identity/keys.py` edits the keyring.
"""

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.contracts.access import METHOD_ROLES, KeyRole, suffices
from services.contracts.errors import Forbidden, Unauthenticated
from services.contracts.names import DEFAULT_TENANT
from services.kit.core.clock import Clock
from services.kit.core.log import logger

PREFIX: Final = "mr"
API_KEY_FILE: Final = "api-key"
SERVICE_KEY_FILE: Final = "service-key"
PEPPER_FILE: Final = "pepper"
KEYRING_FILE: Final = "keyring.json"
SIGNING_KEY_FILE: Final = "signing.pem"
VERIFYING_KEY_FILE: Final = "signing.pub.pem"
USED_FOLDER: Final = "used"
CACHED_KEYS: Final = 1_000
RELOAD_SECONDS: Final = 1.0
MARK_SECONDS: Final = 60.0
"""How coarse the time of a key's last use is."""


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key's entry says of its limits; None leaves it to the gateway's settings, 0 is no limit."""

    requests_per_second: float | None = None
    burst: int | None = None
    concurrent: int | None = None
    tokens_per_minute: int | None = None


NO_KEY_LIMITS: Final = KeyLimits()
LIMIT_NAMES: Final = ("requests_per_second", "burst", "concurrent", "tokens_per_minute")


@dataclass(frozen=True)
class Principal:
    """Who calls, as a key proved it."""

    key_id: str
    role: KeyRole
    tenant: str
    limits: KeyLimits = NO_KEY_LIMITS

    @property
    def actor(self) -> str:
        """How the history names this caller."""
        return f"{self.role}:{self.key_id}"


class KeyExpired(Unauthenticated):
    """This API key has expired."""

    hint = "'millrace keys create' makes another one"


class RoleTooWeak(Forbidden):
    """A key with the role '{role}' may not do that."""

    hint = "use a key with the role '{needed}'"


class ForServicesOnly(Forbidden):
    """Only Millrace's own services may call this one."""

    hint = "ask the gateway, which knows your tenant and your limits"


class OpenToNobody(Forbidden):
    """No role may do that."""


def check_role(principal: Principal, method: str) -> None:
    """`method` is a gRPC method's path, such as `/millrace.v1.RegistryService/GetModel`; a REST route stands for one.

    Raises RoleTooWeak, and OpenToNobody for a method that stands in no table.
    """
    needed = METHOD_ROLES.get(method)
    if needed is None:
        raise OpenToNobody
    require(principal, needed)


def require(principal: Principal, needed: KeyRole) -> None:
    """Raises RoleTooWeak."""
    if not suffices(principal.role, needed):
        raise RoleTooWeak(role=principal.role, needed=needed)


current_principal: ContextVar[Principal | None] = ContextVar("current_principal", default=None)


def ensure_keys(folder: Path) -> None:
    """Makes whatever is missing; safe when several services start at once."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(folder):
        if not (folder / SIGNING_KEY_FILE).exists():
            _make_signing_pair(folder)
        if (folder / KEYRING_FILE).exists():
            return
        pepper = secrets.token_bytes(32)
        write_private(folder / PEPPER_FILE, pepper.hex().encode())
        entries = []
        for name, role in ((API_KEY_FILE, KeyRole.ADMIN), (SERVICE_KEY_FILE, KeyRole.SERVICE)):
            key_id, key = new_key()
            write_private(folder / name, key.encode())
            entries.append({"id": key_id, "hash": hash_of(pepper, key), "role": role, "tenant": DEFAULT_TENANT})
        write_private(folder / KEYRING_FILE, orjson.dumps({"keys": entries}, option=orjson.OPT_INDENT_2))


@dataclass(slots=True)
class _Stored:
    """One key of the file, and when its next use is written down."""

    hash: str
    principal: Principal
    expires: datetime | None
    mark_at: float = 0.0


class Keyring:
    """Tells who a key belongs to; follows changes of its file within a second.

    While the file cannot be read, what it said before holds. Raises the reason only when that is so at the start.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._file = folder / KEYRING_FILE
        self._used = folder / USED_FOLDER
        self._pepper = read_pepper(folder)
        self._clock = clock
        self._by_id: dict[str, _Stored] = {}
        self._cached: OrderedDict[str, _Stored] = OrderedDict()
        self._stamp = (0, 0, 0)
        self._look_again = 0.0
        self._read_file()

    def authenticate(self, authorization: str | None) -> Principal:
        """From an `Authorization: Bearer KEY` header. Raises Unauthenticated or KeyExpired."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated
        now = self._clock.monotonic()
        self._follow_file(now)
        known = self._cached.get(key) or self._recognise(key)
        if known.expires is not None and self._clock.now() >= known.expires:
            raise KeyExpired
        if now >= known.mark_at:
            known.mark_at = now + MARK_SECONDS
            self._mark_use(known.principal.key_id)
        return known.principal

    def holds(self, principal: Principal) -> bool:
        """Whether the key that proved this caller still would: for whoever came in a while ago and stays."""
        self._follow_file(self._clock.monotonic())
        known = self._by_id.get(principal.key_id)
        if known is None or (known.expires is not None and self._clock.now() >= known.expires):
            return False
        return (known.principal.role, known.principal.tenant) == (principal.role, principal.tenant)

    def _recognise(self, key: str) -> _Stored:
        parts = key.split("_")
        stored = self._by_id.get(parts[1]) if len(parts) == 3 and parts[0] == PREFIX else None
        expected = stored.hash if stored is not None else ""
        if not hmac.compare_digest(expected, hash_of(self._pepper, key)) or stored is None:
            raise Unauthenticated
        self._cached[key] = stored
        if len(self._cached) > CACHED_KEYS:
            self._cached.popitem(last=False)
        return stored

    def _mark_use(self, key_id: str) -> None:
        """A folder that cannot be written to (a mounted secret) keeps no uses; nothing else depends on them."""
        seconds = self._clock.now().timestamp()
        with suppress(OSError):
            self._used.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self._used / key_id, os.O_WRONLY | os.O_CREAT, 0o600))
            os.utime(self._used / key_id, (seconds, seconds))

    def _follow_file(self, now: float) -> None:
        if now < self._look_again:
            return
        self._look_again = now + RELOAD_SECONDS
        try:
            self._read_file()
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.error("the keyring cannot be read, its former keys hold: %s", error)

    def _read_file(self) -> None:
        status = self._file.stat()
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp == self._stamp:
            return
        self._by_id = {entry["id"]: _stored(entry) for entry in orjson.loads(self._file.read_bytes())["keys"]}
        self._stamp = stamp
        self._cached.clear()


def _stored(entry: Mapping[str, Any]) -> _Stored:
    """From an entry of the file; one of a file that knew no names, limits and ends too."""
    stored_limits = entry.get("limits", {})
    limits = KeyLimits(**{name: stored_limits[name] for name in LIMIT_NAMES if name in stored_limits})
    expires = datetime.fromisoformat(entry["expires"]) if entry.get("expires") else None
    return _Stored(entry["hash"], Principal(entry["id"], KeyRole(entry["role"]), entry["tenant"], limits), expires)


def read_pepper(folder: Path) -> bytes:
    return bytes.fromhex((folder / PEPPER_FILE).read_text().strip())


def read_key(folder: Path, name: str = SERVICE_KEY_FILE) -> str:
    return (folder / name).read_text().strip()


def new_key() -> tuple[str, str]:
    """Its id and the key itself."""
    key_id = secrets.token_hex(4)
    secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
    return key_id, f"{PREFIX}_{key_id}_{secret}"


def hash_of(pepper: bytes, key: str) -> str:
    return hmac.new(pepper, key.encode(), hashlib.sha256).hexdigest()


def _make_signing_pair(folder: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_private(folder / VERIFYING_KEY_FILE, public)
    secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(folder / SIGNING_KEY_FILE, secret)


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name is on disk too
    finally:
        os.close(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone with the folder's files, among all processes."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
