"""Making, listing and revoking keys in the keyring file."""

import json
import multiprocessing
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.contracts.access import KeyRole
from services.contracts.errors import Unauthenticated
from services.kit.core.clock import SystemClock, VirtualClock
from services.kit.core.idempotency import BadKey, KeyReused
from services.kit.identity.auth import (
    API_KEY_FILE,
    KEYRING_FILE,
    KeyExpired,
    KeyLimits,
    Keyring,
    ensure_keys,
    locked,
    read_key,
)
from services.kit.identity.keys import (
    MACHINE,
    BadKeyLimit,
    BadKeyName,
    BadTenant,
    KeyringBusy,
    KeyringFile,
    LastAdmin,
    NewKey,
    RoleNotGranted,
    ServiceKeyKept,
    UnknownKey,
)


class Place:
    """A keys folder, who changes it, and who reads it."""

    def __init__(self, folder: Path) -> None:
        ensure_keys(folder)
        self.folder = folder
        self.clock = VirtualClock()
        self.file = KeyringFile(folder, self.clock)
        self.ring = Keyring(folder, self.clock)

    def make(self, role: KeyRole = KeyRole.CLIENT, tenant: str = "default", **asked: Any) -> tuple[str, str]:
        record, secret = self.file.create(NewKey(role, tenant, **asked), by=MACHINE)
        return record.id, secret

    async def reread(self) -> None:
        await self.clock.advance(1.1)

    def stored(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / KEYRING_FILE).read_text())
        return told


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "keys")


async def test_a_key_counts_within_a_second_and_only_its_hash_is_kept(place: Place) -> None:
    limits = KeyLimits(requests_per_second=5.0, burst=10)
    key_id, secret = place.make(KeyRole.OPERATOR, "acme", name="the deployer", limits=limits)
    await place.reread()
    principal = place.ring.authenticate(f"Bearer {secret}")
    assert (principal.key_id, principal.role, principal.tenant) == (key_id, KeyRole.OPERATOR, "acme")
    assert principal.limits == limits
    everything = "".join(path.read_text() for path in place.folder.iterdir() if path.is_file() and path.name != ".lock")
    assert secret.split("_")[2] not in everything
    assert stat.S_IMODE((place.folder / KEYRING_FILE).stat().st_mode) == 0o600


async def test_a_revoked_key_is_refused_and_revoking_it_again_changes_nothing(place: Place) -> None:
    key_id, secret = place.make()
    await place.reread()
    principal = place.ring.authenticate(f"Bearer {secret}")
    assert place.ring.holds(principal)
    first = place.file.revoke(key_id, tenant="default", by="admin:1")
    await place.reread()
    with pytest.raises(Unauthenticated):
        place.ring.authenticate(f"Bearer {secret}")
    assert not place.ring.holds(principal)
    again = place.file.revoke(key_id, tenant="default", by="admin:2")
    assert again == first
    assert (first.revoked_by, first.revoked is not None) == ("admin:1", True)
    assert "hash" not in place.stored()["revoked"][0]


async def test_a_key_that_has_expired_says_so_and_no_longer_holds(place: Place) -> None:
    _, secret = place.make(valid=timedelta(hours=1))
    await place.reread()
    principal = place.ring.authenticate(f"Bearer {secret}")
    await place.clock.advance(3_599)
    with pytest.raises(KeyExpired):
        place.ring.authenticate(f"Bearer {secret}")
    assert not place.ring.holds(principal)


async def test_a_key_of_a_file_that_knew_no_names_limits_and_ends_works_and_is_listed(place: Place) -> None:
    told = place.stored()
    assert all(set(entry) == {"id", "hash", "role", "tenant"} for entry in told["keys"])
    assert place.ring.authenticate(f"Bearer {read_key(place.folder, API_KEY_FILE)}").role is KeyRole.ADMIN
    assert [(one.name, one.created, one.expires) for one in place.file.list(tenant="default")] == [("", None, None)] * 2


async def test_a_limit_that_a_newer_release_wrote_is_ignored(place: Place) -> None:
    _, secret = place.make(limits=KeyLimits(burst=3))
    told = place.stored()
    told["keys"][-1]["limits"]["dollars_per_day"] = 5
    (place.folder / KEYRING_FILE).write_text(json.dumps(told))
    await place.reread()
    assert place.ring.authenticate(f"Bearer {secret}").limits == KeyLimits(burst=3)


async def test_the_last_use_is_told_to_the_minute(place: Place) -> None:
    key_id, secret = place.make()
    await place.reread()

    def told() -> Any:
        return next(one.last_used for one in place.file.list(tenant="") if one.id == key_id)

    assert told() is None
    place.ring.authenticate(f"Bearer {secret}")
    first = place.clock.now()
    assert told() == first
    await place.clock.advance(59)
    place.ring.authenticate(f"Bearer {secret}")
    assert told() == first
    await place.clock.advance(2)
    place.ring.authenticate(f"Bearer {secret}")
    assert told() == place.clock.now()


async def test_asking_twice_with_one_idempotency_key_makes_one_key(place: Place) -> None:
    first, secret = place.make(name="a", idempotency_key="k")
    assert secret
    assert place.make(name="a", idempotency_key="k") == (first, "")
    with pytest.raises(KeyReused):
        place.make(name="b", idempotency_key="k")
    assert place.make(tenant="acme", name="a", idempotency_key="k")[1], "another tenant's key is another key"
    place.file.revoke(first, tenant="default", by=MACHINE)
    assert place.make(name="a", idempotency_key="k") == (first, ""), "a revoked key is not made again"
    assert '"k"' not in (place.folder / KEYRING_FILE).read_text()
    await place.clock.advance(49 * 3_600)
    assert place.make(name="a", idempotency_key="k")[0] != first


def test_the_last_admin_key_is_not_revoked_by_mistake(place: Place) -> None:
    first = next(one.id for one in place.file.list(tenant="default") if one.role is KeyRole.ADMIN)
    expired, _ = place.make(KeyRole.ADMIN, valid=timedelta(seconds=0))
    place.make(KeyRole.ADMIN, tenant="acme")
    with pytest.raises(LastAdmin) as refused:
        place.file.revoke(first, tenant="default", by="admin:x")
    assert "--yes" in (refused.value.hint or "")
    other, _ = place.make(KeyRole.ADMIN)
    place.file.revoke(first, tenant="default", by="admin:x")
    assert place.file.revoke(expired, tenant="default", by="admin:x").revoked
    assert place.file.revoke(other, tenant="default", by="admin:x", even_if_last=True).revoked


def test_the_services_own_key_is_kept(place: Place) -> None:
    service = next(one.id for one in place.file.list(tenant="default") if one.role is KeyRole.SERVICE)
    with pytest.raises(ServiceKeyKept):
        place.file.revoke(service, tenant="default", by=MACHINE, even_if_last=True)


def test_another_tenants_key_is_unknown(place: Place) -> None:
    key_id, _ = place.make(tenant="acme")
    with pytest.raises(UnknownKey):
        place.file.revoke(key_id, tenant="default", by="admin:x")
    assert key_id not in [one.id for one in place.file.list(tenant="default")]
    assert key_id in [one.id for one in place.file.list(tenant="")]
    assert place.file.revoke(key_id, tenant="", by=MACHINE).revoked


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (NewKey(KeyRole.SERVICE, "default"), RoleNotGranted),
        (NewKey(KeyRole.CLIENT, "Not A Tenant"), BadTenant),
        (NewKey(KeyRole.CLIENT, ""), BadTenant),
        (NewKey(KeyRole.CLIENT, "default", idempotency_key="a\nb"), BadKey),
        (NewKey(KeyRole.CLIENT, "default", name="n" * 101), BadKeyName),
        (NewKey(KeyRole.CLIENT, "default", name="a\nb"), BadKeyName),
        (NewKey(KeyRole.CLIENT, "default", limits=KeyLimits(burst=-1)), BadKeyLimit),
        (NewKey(KeyRole.CLIENT, "default", limits=KeyLimits(requests_per_second=float("nan"))), BadKeyLimit),
        (NewKey(KeyRole.CLIENT, "default", limits=KeyLimits(tokens_per_minute=10**12)), BadKeyLimit),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_key_that_cannot_be_made_is_refused_and_changes_nothing(
    place: Place, asked: NewKey, refusal: type[Exception]
) -> None:
    before = (place.folder / KEYRING_FILE).read_bytes()
    with pytest.raises(refusal):
        place.file.create(asked, by=MACHINE)
    assert (place.folder / KEYRING_FILE).read_bytes() == before


async def test_what_ended_long_ago_is_forgotten_with_the_next_change(place: Place) -> None:
    revoked, _ = place.make()
    expired, _ = place.make(valid=timedelta(days=1))
    place.file.revoke(revoked, tenant="default", by=MACHINE)
    await place.clock.advance(32 * 86_400)
    place.make()
    told = place.stored()
    assert {revoked, expired} & {entry["id"] for part in ("keys", "revoked") for entry in told[part]} == set()


def test_whoever_waits_too_long_for_the_file_is_told_so(place: Place) -> None:
    hasty = KeyringFile(place.folder, place.clock, lock_seconds=0.05)
    with locked(place.folder), pytest.raises(KeyringBusy):
        hasty.create(NewKey(KeyRole.CLIENT, "default"), by=MACHINE)


def _make(folder: Path, number: int) -> None:
    KeyringFile(folder, SystemClock()).create(NewKey(KeyRole.CLIENT, "default", name=str(number)), by=MACHINE)


def test_keys_made_by_several_processes_at_once_are_all_there(place: Place) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_make, args=(place.folder, number)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0] * 8
    assert {one.name for one in place.file.list(tenant="default")} >= {str(number) for number in range(8)}
