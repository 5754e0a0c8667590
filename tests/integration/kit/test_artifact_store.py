"""Artifacts: what is fetched is what was put, or it is refused."""

import asyncio
import shutil
from pathlib import Path

import pytest

from services.contracts.artifact import ArtifactRef
from services.kit.identity.auth import ensure_keys
from services.kit.storage.artifacts import ArtifactRefused, ArtifactStore

FILES = {"fp32.onnx": b"\x08\x01graph" * 1000, "millrace.json": b"{}", "tokenizer.json": b'{"a": 1}'}


def folder_of(path: Path, files: dict[str, bytes] | None = None) -> Path:
    path.mkdir(parents=True)
    for name, content in (files or FILES).items():
        (path / name).write_bytes(content)
    return path


class Place:
    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.keys, self.root, self.cache = tmp / "keys", tmp / "my store", tmp / "cache"
        ensure_keys(self.keys)
        self.store = ArtifactStore(f"file://{self.root}", self.keys)
        self.ref: ArtifactRef

    @property
    def stored(self) -> Path:
        return self.root / "chapters" / "run-1"

    async def fetched(self) -> Path:
        return await self.store.fetch(self.ref, self.cache)

    async def refused(self, says: str, ref: ArtifactRef | None = None, store: ArtifactStore | None = None) -> None:
        with pytest.raises(ArtifactRefused, match=says):
            await (store or self.store).fetch(ref or self.ref, self.cache)
        left = [path for path in self.cache.iterdir() if path.is_dir()] if self.cache.exists() else []
        assert left == []


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One signed artifact for all tests: each works on a copy."""
    place = Place(tmp_path_factory.mktemp("artifacts"))
    place.ref = asyncio.run(place.store.put(folder_of(place.tmp / "work"), "chapters/run-1"))
    return place


@pytest.fixture
def place(signed: Place, tmp_path: Path) -> Place:
    shutil.copytree(signed.keys, tmp_path / "keys")
    shutil.copytree(signed.root, tmp_path / "my store")
    made = Place(tmp_path)
    made.ref = signed.ref.model_copy(update={"uri": f"file://{made.root}/chapters/run-1"})
    return made


async def test_what_was_put_is_fetched_and_checked_again_each_time(place: Place) -> None:
    first, again = await place.fetched(), await place.fetched()
    assert first == again == place.cache / place.ref.digest
    assert {path.name for path in first.iterdir()} == {*FILES, "manifest.json", "model.sig"}
    assert all((first / name).read_bytes() == content for name, content in FILES.items())
    assert place.ref.size_bytes == sum(map(len, FILES.values()))
    assert place.ref.signer == place.store.signer()
    (first / "fp32.onnx").write_bytes(b"spoiled in the cache")
    await place.refused("fp32.onnx is not what the manifest says")


async def test_one_artifact_may_be_fetched_by_several_at_once(place: Place) -> None:
    found = await asyncio.gather(*(place.fetched() for _ in range(3)))
    assert set(found) == {place.cache / place.ref.digest}
    assert [path.name for path in place.cache.iterdir()] == [place.ref.digest]


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "model.sig"])
async def test_a_flipped_bit_in_any_file_is_refused(place: Place, name: str) -> None:
    file = place.stored / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    await place.refused(place.ref.digest[:12])


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "model.sig"])
async def test_a_truncated_or_missing_file_is_refused(place: Place, name: str) -> None:
    file = place.stored / name
    file.write_bytes(file.read_bytes()[:-3])
    await place.refused(place.ref.digest[:12])
    file.unlink()
    await place.refused("a file of it is missing")


async def test_an_extra_file_or_a_link_in_the_cache_is_refused(place: Place) -> None:
    (await place.fetched() / "extra.pkl").write_bytes(b"\x80\x04")
    await place.refused("its files are not those of the manifest")
    link = await place.fetched() / "fp32.onnx"
    link.unlink()
    link.symlink_to(place.stored / "fp32.onnx")
    await place.refused("fp32.onnx is not a plain file")


async def test_a_signature_of_another_key_or_of_another_artifact_is_refused(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    foreign = await other.store.put(folder_of(tmp_path / "foreign"), "chapters/run-1")
    await place.refused("not trusted here", place.ref.model_copy(update={"signer": foreign.signer}))
    shutil.copy(other.stored / "model.sig", place.stored / "model.sig")
    await place.refused("its signature does not fit")
    second = await place.store.put(folder_of(tmp_path / "second", {**FILES, "millrace.json": b"[]"}), "chapters/run-2")
    shutil.copy(place.root / "chapters" / "run-2" / "model.sig", place.stored / "model.sig")
    await place.refused("its signature does not fit")
    assert second.digest != place.ref.digest


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc",
        "http://169.254.169.254/x",
        "{root}",
        "{root}/",
        "{root}/../keys",
        "{root}/a/../../keys",
        "{root}/./a",
        "{root}//etc",
        "{root}/%2e%2e/keys",
        "{root}/a\\..",
        "{root}/a::memory://b",
        "{root}x/a",
        "simplecache::{root}/a",
    ],
)
async def test_what_lies_outside_the_store_is_never_looked_at(place: Place, uri: str) -> None:
    there = place.ref.model_copy(update={"uri": uri.format(root=f"file://{place.root}")})
    await place.refused("it lies outside the artifact store", there)
    with pytest.raises(ArtifactRefused, match="it lies outside the artifact store"):
        await place.store.read(there, "millrace.json")


async def test_one_file_is_read_and_checked(place: Place) -> None:
    assert await place.store.read(place.ref, "millrace.json") == b"{}"
    with pytest.raises(ArtifactRefused, match="it has no weights"):
        await place.store.read(place.ref, "weights.bin")
    (place.stored / "millrace.json").write_bytes(b"[]")
    with pytest.raises(ArtifactRefused, match=r"millrace.json is not what the manifest says"):
        await place.store.read(place.ref, "millrace.json")


async def test_putting_the_same_name_again_replaces_it(place: Place, tmp_path: Path) -> None:
    second = await place.store.put(folder_of(tmp_path / "again", {"millrace.json": b"[]"}), "chapters/run-1")
    assert (await place.store.fetch(second, place.cache) / "millrace.json").read_bytes() == b"[]"
    with pytest.raises(ArtifactRefused, match="its manifest is not the one that was announced"):
        await place.store.fetch(place.ref, tmp_path / "another cache")
