"""Keys: made once, kept private, and recognised."""

import json
import multiprocessing
import stat
from pathlib import Path

import orjson
import pytest

from services.contracts.access import KeyRole
from services.contracts.errors import Unauthenticated
from services.kit.core.clock import VirtualClock
from services.kit.identity.auth import API_KEY_FILE, KEYRING_FILE, PEPPER_FILE, Keyring, ensure_keys, read_key

MADE = {"api-key", "service-key", "pepper", "keyring.json", "signing.pem", "signing.pub.pem"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    ensure_keys(tmp_path / "keys")
    return tmp_path / "keys"


def bearer(key: str) -> str:
    return f"Bearer {key}"


def test_keys_are_made_once_readable_by_their_owner_alone(keys: Path) -> None:
    files = {path.name: path for path in keys.iterdir() if path.name != ".lock"}
    assert set(files) == MADE
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    before = {name: path.read_bytes() for name, path in files.items()}
    ensure_keys(keys)
    assert {name: path.read_bytes() for name, path in files.items()} == before


def test_services_that_start_at_once_agree_on_the_keys(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    fork = multiprocessing.get_context("fork")
    starts = [fork.Process(target=ensure_keys, args=(folder,)) for _ in range(6)]
    for process in starts:
        process.start()
    for process in starts:
        process.join(20)
    assert [process.exitcode for process in starts] == [0] * 6
    assert Keyring(folder, VirtualClock()).authenticate(bearer(read_key(folder))).role is KeyRole.SERVICE
    assert not list(folder.glob("*.partial"))


def test_a_start_that_broke_off_before_the_keyring_is_made_good(keys: Path) -> None:
    (keys / KEYRING_FILE).unlink()
    ensure_keys(keys)
    assert Keyring(keys, VirtualClock()).authenticate(bearer(read_key(keys, API_KEY_FILE))).role is KeyRole.ADMIN


def test_a_key_has_256_random_bits_and_a_prefix_and_only_its_hash_is_stored(keys: Path) -> None:
    key = read_key(keys, API_KEY_FILE)
    prefix, key_id, secret = key.split("_")
    assert (prefix, len(secret)) == ("mr", 52)  # 256 bits in base 32
    stored = (keys / KEYRING_FILE).read_text()
    assert secret not in stored
    assert json.loads(stored)["keys"][0]["id"] == key_id
    assert len(bytes.fromhex((keys / PEPPER_FILE).read_text())) == 32


def test_a_key_names_its_caller(keys: Path) -> None:
    ring, key = Keyring(keys, VirtualClock()), read_key(keys, API_KEY_FILE)
    principal = ring.authenticate(bearer(key))
    assert (principal.role, principal.tenant) == (KeyRole.ADMIN, "default")
    assert principal.actor == f"admin:{principal.key_id}"
    assert ring.authenticate(f"bearer   {key} ") == principal


def test_anything_else_is_refused(keys: Path) -> None:
    ring, key = Keyring(keys, VirtualClock()), read_key(keys, API_KEY_FILE)
    prefix, key_id, secret = key.split("_")
    other = read_key(keys).split("_")[1]
    wrong = [
        None, "", "Bearer", "Bearer ", key, f"Basic {key}", bearer(""), bearer("mr__"), bearer("_" * 3),
        bearer("é" * 9),
        bearer(key + "x"), bearer(key[:-1]), bearer(key.upper()), bearer(f"{prefix}_{other}_{secret}"),
        bearer(f"{prefix}_{key_id}_"), bearer(f"xx_{key_id}_{secret}"), bearer(f"{key}_{secret}"), bearer("\0" + key),
    ]  # fmt: skip
    for header in wrong:
        with pytest.raises(Unauthenticated):
            ring.authenticate(header)
    ring.authenticate(bearer(key))


async def test_a_key_that_is_taken_away_or_added_counts_within_a_second(keys: Path) -> None:
    clock = VirtualClock()
    ring, key = Keyring(keys, clock), read_key(keys, API_KEY_FILE)
    ring.authenticate(bearer(key))
    content = json.loads((keys / KEYRING_FILE).read_text())
    (keys / KEYRING_FILE).write_bytes(orjson.dumps({"keys": content["keys"][1:]}))
    await clock.advance(1.1)
    with pytest.raises(Unauthenticated):
        ring.authenticate(bearer(key))
    (keys / KEYRING_FILE).write_bytes(orjson.dumps(content))
    await clock.advance(1.1)
    ring.authenticate(bearer(key))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys": [{}]}', b'{"keys": [{"id": 1}]}', None])
async def test_while_the_file_cannot_be_read_the_former_keys_hold(keys: Path, content: bytes | None) -> None:
    clock = VirtualClock()
    ring, key = Keyring(keys, clock), read_key(keys, API_KEY_FILE)
    good = (keys / KEYRING_FILE).read_bytes()
    if content is None:
        (keys / KEYRING_FILE).unlink()
    else:
        (keys / KEYRING_FILE).write_bytes(content)
    await clock.advance(1.1)
    ring.authenticate(bearer(key))
    (keys / KEYRING_FILE).write_bytes(good.replace(b'"admin"', b'"viewer"'))
    await clock.advance(1.1)
    assert ring.authenticate(bearer(key)).role is KeyRole.VIEWER


def test_no_more_keys_are_cached_than_a_thousand(keys: Path) -> None:
    ring, key = Keyring(keys, VirtualClock()), read_key(keys, API_KEY_FILE)
    for _ in range(3):
        ring.authenticate(bearer(key))
    assert len(ring._cached) == 1
