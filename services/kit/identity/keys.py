"""Making, listing and revoking keys, in the keyring file; every service follows it within a second.

Whoever may write the keys folder may do all of it, for every tenant: that is the operator of the machine. The gateway
lets admins in, for their own tenant. What is written: the hash of a key, never the key; who made and who revoked it;
and the hash of an idempotency key, so that asking twice makes one key. A revoked key leaves the list that services
read, and is remembered for 30 days beside it.
"""

import errno
import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from services.contracts.access import KeyRole
from services.contracts.errors import Conflict, Invalid, NotFound, Unavailable
from services.contracts.names import NAME_PATTERN
from services.kit.core.clock import Clock
from services.kit.core.idempotency import RETENTION, KeyReused, bind_key
from services.kit.identity.auth import (
    KEYRING_FILE,
    LIMIT_NAMES,
    NO_KEY_LIMITS,
    USED_FOLDER,
    KeyLimits,
    hash_of,
    new_key,
    read_pepper,
    write_private,
)

MAX_KEYS: Final = 10_000
MAX_NAME_CHARS: Final = 100
REVOKED_KEY_RETENTION: Final = timedelta(days=30)
LOCK_SECONDS: Final = 5.0
LOCK_LOOK_SECONDS: Final = 0.02
MACHINE: Final = "machine"
"""Who made or revoked a key in the folder itself."""

GRANTED: Final = (KeyRole.VIEWER, KeyRole.CLIENT, KeyRole.OPERATOR, KeyRole.ADMIN)

T = TypeVar("T")


class UnknownKey(NotFound):
    """No key has the id '{key}'."""

    field = "key"
    hint = "'millrace keys list' shows them"


class RoleNotGranted(Invalid):
    """A key cannot be given the role '{role}'."""

    field = "role"
    hint = "one of viewer, client, operator, admin"


class BadTenant(Invalid):
    """That is no tenant's name."""

    field = "tenant"
    hint = "lower-case letters, digits, '.', '-' and '_', at most 63 of them"


class BadKeyName(Invalid):
    """A key's name has at most {limit} characters, all of them printable."""

    field = "name"


class BadKeyLimit(Invalid):
    """The limit '{limit}' must be a number from 0 to {most}; 0 is no limit."""


class LastAdmin(Conflict):
    """This is the last admin key of the tenant '{tenant}'."""

    field = "key"
    hint = "make another one first; or ask again and say that you mean it: --yes, 'even_if_last'"


class ServiceKeyIsPermanent(Conflict):
    """The services call each other with this key."""

    field = "key"
    hint = "stop them and remove the keys folder to have all keys made anew"


class TooManyKeys(Conflict):
    """There are {limit} keys already, which is the limit."""

    hint = "revoke those that are no longer used; 'millrace keys list' tells when each was"


class KeyringBusy(Unavailable):
    """Somebody else has been changing the keys for {seconds} seconds."""

    hint = "retry after the time given"


@dataclass(frozen=True)
class NewKey:
    """A key that is asked for. `idempotency_key` makes asking twice harmless."""

    role: KeyRole
    tenant: str
    name: str = ""
    valid: timedelta | None = None
    limits: KeyLimits = NO_KEY_LIMITS
    idempotency_key: str = ""

    def fingerprint(self) -> str:
        """Equal for equal requests."""
        parts = [self.role, self.tenant, self.name, self.valid and self.valid.total_seconds(), asdict(self.limits)]
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()


@dataclass(frozen=True)
class KeyRecord:
    """What may be told of a key. `last_used` is to the minute."""

    id: str
    role: KeyRole
    tenant: str
    name: str = ""
    created: datetime | None = None
    created_by: str = ""
    expires: datetime | None = None
    last_used: datetime | None = None
    limits: KeyLimits = field(default=NO_KEY_LIMITS)
    revoked: datetime | None = None
    revoked_by: str = ""


class KeyringFile:
    """The keyring, for whoever changes it. A call blocks on the disk, and `lock_seconds` at most on others' changes."""

    def __init__(self, folder: Path, clock: Clock, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._folder = folder
        self._clock = clock
        self._lock_seconds = lock_seconds

    def create(self, spec: NewKey, *, by: str) -> tuple[KeyRecord, str]:
        """The key and its secret; the secret is empty where an earlier call with the same idempotency key made it.

        Raises RoleNotGranted, BadTenant, BadKeyName, BadKeyLimit, KeyReused, BadKey, TooManyKeys or KeyringBusy.
        """
        _check(spec)
        return self._change(lambda ring, now: self._create(ring, spec, by, now))

    def revoke(self, key_id: str, *, tenant: str, by: str, even_if_last: bool = False) -> KeyRecord:
        """Takes the key away; once more changes nothing. An empty tenant is every tenant.

        Raises UnknownKey (also for another tenant's key), LastAdmin, ServiceKeyIsPermanent or KeyringBusy.
        """
        return self._change(lambda ring, now: self._revoke(ring, key_id, tenant, by, even_if_last, now))

    def list(self, *, tenant: str, with_revoked: bool = False) -> list[KeyRecord]:
        """The tenant's keys (an empty tenant is every tenant), the oldest first."""
        ring = self._read()
        entries = ring["keys"] + (ring.get("revoked", []) if with_revoked else [])
        records = [self._record(entry) for entry in entries if tenant in ("", entry["tenant"])]
        return sorted(records, key=lambda one: (one.created.timestamp() if one.created else 0.0, one.id))

    def _create(self, ring: dict[str, Any], spec: NewKey, by: str, now: datetime) -> tuple[KeyRecord, str]:
        pepper = read_pepper(self._folder)
        idempotency_hash = hash_of(pepper, f"{spec.tenant}\n{spec.idempotency_key}") if spec.idempotency_key else ""
        if idempotency_hash and (earlier := _find_idempotent(ring, idempotency_hash, now)) is not None:
            if earlier["asked"]["for"] != spec.fingerprint():
                raise KeyReused
            return self._record(earlier), ""
        if len(ring["keys"]) >= MAX_KEYS:
            raise TooManyKeys(limit=MAX_KEYS)
        known = {entry["id"] for part in ("keys", "revoked") for entry in ring.get(part, [])}
        key_id, secret = new_key()
        while key_id in known:
            key_id, secret = new_key()
        limits = {name: value for name in LIMIT_NAMES if (value := getattr(spec.limits, name)) is not None}
        entry: dict[str, Any] = {
            "id": key_id,
            "hash": hash_of(pepper, secret),
            "role": spec.role,
            "tenant": spec.tenant,
            "name": spec.name,
            "created": now.isoformat(),
            "created_by": by,
        }
        if spec.valid is not None:
            entry["expires"] = (now + spec.valid).isoformat()
        if limits:
            entry["limits"] = limits
        if idempotency_hash:
            entry["asked"] = {"by": idempotency_hash, "for": spec.fingerprint()}
        ring["keys"].append(entry)
        return self._record(entry), secret

    def _revoke(
        self, ring: dict[str, Any], key_id: str, tenant: str, by: str, even_if_last: bool, now: datetime
    ) -> KeyRecord:
        entry = _find(ring["keys"], key_id, tenant)
        if entry is None:
            gone = _find(ring.get("revoked", []), key_id, tenant)
            if gone is None:
                raise UnknownKey(key=key_id[:50])
            return self._record(gone)
        if entry["role"] == KeyRole.SERVICE:
            raise ServiceKeyIsPermanent
        if not even_if_last and _is_last_admin(ring, entry, now):
            raise LastAdmin(tenant=entry["tenant"])
        ring["keys"].remove(entry)
        revoked = {name: value for name, value in entry.items() if name != "hash"}
        revoked |= {"revoked": now.isoformat(), "revoked_by": by}
        ring.setdefault("revoked", []).append(revoked)
        return self._record(revoked)

    def _record(self, entry: dict[str, Any]) -> KeyRecord:
        limits = {name: value for name, value in entry.get("limits", {}).items() if name in LIMIT_NAMES}
        return KeyRecord(
            id=entry["id"],
            role=KeyRole(entry["role"]),
            tenant=entry["tenant"],
            name=entry.get("name", ""),
            created=_timestamp(entry.get("created")),
            created_by=entry.get("created_by", MACHINE),
            expires=_timestamp(entry.get("expires")),
            last_used=self._last_use(entry["id"]),
            limits=KeyLimits(**limits),
            revoked=_timestamp(entry.get("revoked")),
            revoked_by=entry.get("revoked_by", ""),
        )

    def _last_use(self, key_id: str) -> datetime | None:
        try:
            seconds = (self._folder / USED_FOLDER / key_id).stat().st_mtime
        except OSError:
            return None
        return datetime.fromtimestamp(seconds, tz=self._clock.now().tzinfo)

    def _read(self) -> dict[str, Any]:
        ring: dict[str, Any] = orjson.loads((self._folder / KEYRING_FILE).read_bytes())
        return ring

    def _change(self, change: Callable[[dict[str, Any], datetime], T]) -> T:
        """Reads, changes and writes the file under the folder's lock; what raises has changed nothing."""
        with _locked_soon(self._folder, self._lock_seconds):
            ring, now = self._read(), self._clock.now()
            before = orjson.dumps(ring)
            answer = change(ring, now)
            if orjson.dumps(ring) != before:
                forgotten = _forget(ring, now)
                write_private(self._folder / KEYRING_FILE, orjson.dumps(ring, option=orjson.OPT_INDENT_2))
                for key_id in forgotten:
                    (self._folder / USED_FOLDER / key_id).unlink(missing_ok=True)
            return answer


def _check(spec: NewKey) -> None:
    bind_key(spec.tenant, spec.idempotency_key)  # its shape is the same for every door and effect
    if spec.role not in GRANTED:
        raise RoleNotGranted(role=spec.role)
    if re.fullmatch(NAME_PATTERN, spec.tenant) is None:
        raise BadTenant
    if len(spec.name) > MAX_NAME_CHARS or not spec.name.isprintable():
        raise BadKeyName(limit=MAX_NAME_CHARS)
    for name in LIMIT_NAMES:
        value = getattr(spec.limits, name)
        if value is not None and not 0 <= value <= MOST[name]:
            raise BadKeyLimit(limit=name, most=MOST[name], field=f"limits.{name}")


MOST: Final = {
    "requests_per_second": 1_000_000,
    "burst": 1_000_000,
    "concurrent": 1_000_000,
    "tokens_per_minute": 1_000_000_000,
}
"""The largest that a key's entry may say of each limit."""


def _find_idempotent(ring: dict[str, Any], idempotency_hash: str, now: datetime) -> dict[str, Any] | None:
    """The entry that this idempotency key made in the last 48 hours, be it revoked by now."""
    for entry in (*ring["keys"], *ring.get("revoked", [])):
        created = _timestamp(entry.get("created"))
        if entry.get("asked", {}).get("by") == idempotency_hash and created is not None and now - created < RETENTION:
            records: dict[str, Any] = entry
            return records
    return None


def _is_last_admin(ring: dict[str, Any], entry: dict[str, Any], now: datetime) -> bool:
    """An admin key that would leave its tenant without one that holds."""
    if entry["role"] != KeyRole.ADMIN:
        return False
    others = (other for other in ring["keys"] if other is not entry and other["tenant"] == entry["tenant"])
    return not any(
        other["role"] == KeyRole.ADMIN and ((ends := _timestamp(other.get("expires"))) is None or ends > now)
        for other in others
    )


def _forget(ring: dict[str, Any], now: datetime) -> list[str]:
    """Drops what was revoked or has expired more than 30 days ago; the ids of what it dropped."""
    gone: list[str] = []
    for part, ended in (("keys", "expires"), ("revoked", "revoked")):
        remaining = []
        for entry in ring.get(part, []):
            ended_at = _timestamp(entry.get(ended))
            old = ended_at is not None and now - ended_at > REVOKED_KEY_RETENTION
            gone.append(entry["id"]) if old else remaining.append(entry)
        if part in ring:
            ring[part] = remaining
    return gone


def _find(entries: list[dict[str, Any]], key_id: str, tenant: str) -> dict[str, Any] | None:
    return next((one for one in entries if one["id"] == key_id and tenant in ("", one["tenant"])), None)


def _timestamp(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@contextmanager
def _locked_soon(folder: Path, seconds: float) -> Iterator[None]:
    """The folder's lock, waited for at most so long. Raises KeyringBusy."""
    give_up = time.monotonic() + seconds
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= give_up:
                    raise KeyringBusy(seconds=seconds, retry_after_seconds=1.0) from error
                time.sleep(LOCK_LOOK_SECONDS)
        yield
