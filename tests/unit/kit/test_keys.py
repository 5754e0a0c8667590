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
    ServiceKeyIsPermanent,
    UnknownKey,
)


class KeyFolder:
    """A keys folder, who changes it, and who reads it."""

    def __init__(self, folder: Path) -> None:
        ensure_keys(folder)
        self.folder = folder
        self.clock = VirtualClock()
        self.file = KeyringFile(folder, self.clock)
        self.ring = Keyring(folder, self.clock)

    def make(self, role: KeyRole = KeyRole.CLIENT, tenant: str = "default", **requested: Any) -> tuple[str, str]:
        record, secret = self.file.create(NewKey(role, tenant, **requested), by=MACHINE)
        return record.id, secret

    async def reread(self) -> None:
        await self.clock.advance(1.1)

    def stored(self) -> dict[str, Any]:
        response: dict[str, Any] = json.loads((self.folder / KEYRING_FILE).read_text())
        return response


@pytest.fixture
def key_folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "keys")


async def test_a_key_counts_within_a_second_and_only_its_hash_is_stored(key_folder: KeyFolder) -> None:
    limits = KeyLimits(requests_per_second=5.0, burst=10)
    key_id, secret = key_folder.make(KeyRole.OPERATOR, "acme", name="the deployer", limits=limits)
    await key_folder.reread()
    principal = key_folder.ring.authenticate(f"Bearer {secret}")
    assert (principal.key_id, principal.role, principal.tenant) == (key_id, KeyRole.OPERATOR, "acme")
    assert principal.limits == limits
    everything = "".join(
        path.read_text() for path in key_folder.folder.iterdir() if path.is_file() and path.name != ".lock"
    )
    assert secret.split("_")[2] not in everything
    assert stat.S_IMODE((key_folder.folder / KEYRING_FILE).stat().st_mode) == 0o600


async def test_a_revoked_key_is_refused_and_revoking_it_again_changes_nothing(key_folder: KeyFolder) -> None:
    key_id, secret = key_folder.make()
    await key_folder.reread()
    principal = key_folder.ring.authenticate(f"Bearer {secret}")
    assert key_folder.ring.holds(principal)
    first = key_folder.file.revoke(key_id, tenant="default", by="admin:1")
    await key_folder.reread()
    with pytest.raises(Unauthenticated):
        key_folder.ring.authenticate(f"Bearer {secret}")
    assert not key_folder.ring.holds(principal)
    again = key_folder.file.revoke(key_id, tenant="default", by="admin:2")
    assert again == first
    assert (first.revoked_by, first.revoked is not None) == ("admin:1", True)
    assert "hash" not in key_folder.stored()["revoked"][0]


async def test_a_key_that_has_expired_says_so_and_no_longer_holds(key_folder: KeyFolder) -> None:
    _, secret = key_folder.make(valid=timedelta(hours=1))
    await key_folder.reread()
    principal = key_folder.ring.authenticate(f"Bearer {secret}")
    await key_folder.clock.advance(3_599)
    with pytest.raises(KeyExpired):
        key_folder.ring.authenticate(f"Bearer {secret}")
    assert not key_folder.ring.holds(principal)


async def test_a_key_of_a_file_that_knew_no_names_limits_and_ends_works_and_is_listed(key_folder: KeyFolder) -> None:
    response = key_folder.stored()
    assert all(set(entry) == {"id", "hash", "role", "tenant"} for entry in response["keys"])
    assert key_folder.ring.authenticate(f"Bearer {read_key(key_folder.folder, API_KEY_FILE)}").role is KeyRole.ADMIN
    assert [(one.name, one.created, one.expires) for one in key_folder.file.list(tenant="default")] == [
        ("", None, None)
    ] * 2


async def test_a_limit_that_a_newer_release_wrote_is_ignored(key_folder: KeyFolder) -> None:
    _, secret = key_folder.make(limits=KeyLimits(burst=3))
    response = key_folder.stored()
    response["keys"][-1]["limits"]["dollars_per_day"] = 5
    (key_folder.folder / KEYRING_FILE).write_text(json.dumps(response))
    await key_folder.reread()
    assert key_folder.ring.authenticate(f"Bearer {secret}").limits == KeyLimits(burst=3)


async def test_the_last_use_is_shown_to_the_minute(key_folder: KeyFolder) -> None:
    key_id, secret = key_folder.make()
    await key_folder.reread()

    def response() -> Any:
        return next(one.last_used for one in key_folder.file.list(tenant="") if one.id == key_id)

    assert response() is None
    key_folder.ring.authenticate(f"Bearer {secret}")
    first = key_folder.clock.now()
    assert response() == first
    await key_folder.clock.advance(59)
    key_folder.ring.authenticate(f"Bearer {secret}")
    assert response() == first
    await key_folder.clock.advance(2)
    key_folder.ring.authenticate(f"Bearer {secret}")
    assert response() == key_folder.clock.now()


async def test_two_requests_with_one_idempotency_key_make_one_key(key_folder: KeyFolder) -> None:
    first, secret = key_folder.make(name="a", idempotency_key="k")
    assert secret
    assert key_folder.make(name="a", idempotency_key="k") == (first, "")
    with pytest.raises(KeyReused):
        key_folder.make(name="b", idempotency_key="k")
    assert key_folder.make(tenant="acme", name="a", idempotency_key="k")[1], "another tenant's key is another key"
    key_folder.file.revoke(first, tenant="default", by=MACHINE)
    assert key_folder.make(name="a", idempotency_key="k") == (first, ""), "a revoked key is not made again"
    assert '"k"' not in (key_folder.folder / KEYRING_FILE).read_text()
    await key_folder.clock.advance(49 * 3_600)
    assert key_folder.make(name="a", idempotency_key="k")[0] != first


def test_the_last_admin_key_is_not_revoked_by_mistake(key_folder: KeyFolder) -> None:
    first = next(one.id for one in key_folder.file.list(tenant="default") if one.role is KeyRole.ADMIN)
    expired, _ = key_folder.make(KeyRole.ADMIN, valid=timedelta(seconds=0))
    key_folder.make(KeyRole.ADMIN, tenant="acme")
    with pytest.raises(LastAdmin) as refused:
        key_folder.file.revoke(first, tenant="default", by="admin:x")
    assert "--yes" in (refused.value.hint or "")
    other, _ = key_folder.make(KeyRole.ADMIN)
    key_folder.file.revoke(first, tenant="default", by="admin:x")
    assert key_folder.file.revoke(expired, tenant="default", by="admin:x").revoked
    assert key_folder.file.revoke(other, tenant="default", by="admin:x", even_if_last=True).revoked


def test_the_services_own_key_cannot_be_revoked(key_folder: KeyFolder) -> None:
    service = next(one.id for one in key_folder.file.list(tenant="default") if one.role is KeyRole.SERVICE)
    with pytest.raises(ServiceKeyIsPermanent):
        key_folder.file.revoke(service, tenant="default", by=MACHINE, even_if_last=True)


def test_another_tenants_key_is_unknown(key_folder: KeyFolder) -> None:
    key_id, _ = key_folder.make(tenant="acme")
    with pytest.raises(UnknownKey):
        key_folder.file.revoke(key_id, tenant="default", by="admin:x")
    assert key_id not in [one.id for one in key_folder.file.list(tenant="default")]
    assert key_id in [one.id for one in key_folder.file.list(tenant="")]
    assert key_folder.file.revoke(key_id, tenant="", by=MACHINE).revoked


@pytest.mark.parametrize(
    ("requested", "error"),
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
    key_folder: KeyFolder, requested: NewKey, error: type[Exception]
) -> None:
    before = (key_folder.folder / KEYRING_FILE).read_bytes()
    with pytest.raises(error):
        key_folder.file.create(requested, by=MACHINE)
    assert (key_folder.folder / KEYRING_FILE).read_bytes() == before


async def test_what_ended_long_ago_is_forgotten_with_the_next_change(key_folder: KeyFolder) -> None:
    revoked, _ = key_folder.make()
    expired, _ = key_folder.make(valid=timedelta(days=1))
    key_folder.file.revoke(revoked, tenant="default", by=MACHINE)
    await key_folder.clock.advance(32 * 86_400)
    key_folder.make()
    response = key_folder.stored()
    assert {revoked, expired} & {entry["id"] for part in ("keys", "revoked") for entry in response[part]} == set()


def test_whoever_waits_too_long_for_the_file_gets_an_error(key_folder: KeyFolder) -> None:
    hasty = KeyringFile(key_folder.folder, key_folder.clock, lock_seconds=0.05)
    with locked(key_folder.folder), pytest.raises(KeyringBusy):
        hasty.create(NewKey(KeyRole.CLIENT, "default"), by=MACHINE)


def _make(folder: Path, number: int) -> None:
    KeyringFile(folder, SystemClock()).create(NewKey(KeyRole.CLIENT, "default", name=str(number)), by=MACHINE)


def test_keys_made_by_several_processes_at_once_are_all_there(key_folder: KeyFolder) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_make, args=(key_folder.folder, number)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0] * 8
    assert {one.name for one in key_folder.file.list(tenant="default")} >= {str(number) for number in range(8)}
