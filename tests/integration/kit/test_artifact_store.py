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


class StoreUnderTest:
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
def signed(tmp_path_factory: pytest.TempPathFactory) -> StoreUnderTest:
    """One signed artifact for all tests: each works on a copy."""
    store_under_test = StoreUnderTest(tmp_path_factory.mktemp("artifacts"))
    store_under_test.ref = asyncio.run(
        store_under_test.store.put(folder_of(store_under_test.tmp / "work"), "chapters/run-1")
    )
    return store_under_test


@pytest.fixture
def store_under_test(signed: StoreUnderTest, tmp_path: Path) -> StoreUnderTest:
    shutil.copytree(signed.keys, tmp_path / "keys")
    shutil.copytree(signed.root, tmp_path / "my store")
    made = StoreUnderTest(tmp_path)
    made.ref = signed.ref.model_copy(update={"uri": f"file://{made.root}/chapters/run-1"})
    return made


async def test_what_was_put_is_fetched_and_checked_again_each_time(store_under_test: StoreUnderTest) -> None:
    first, again = await store_under_test.fetched(), await store_under_test.fetched()
    assert first == again == store_under_test.cache / store_under_test.ref.digest
    assert {path.name for path in first.iterdir()} == {*FILES, "manifest.json", "model.sig"}
    assert all((first / name).read_bytes() == content for name, content in FILES.items())
    assert store_under_test.ref.size_bytes == sum(map(len, FILES.values()))
    assert store_under_test.ref.signer == store_under_test.store.signer()
    (first / "fp32.onnx").write_bytes(b"spoiled in the cache")
    await store_under_test.refused("fp32.onnx is not what the manifest says")


async def test_one_artifact_may_be_fetched_by_several_at_once(store_under_test: StoreUnderTest) -> None:
    fetched = await asyncio.gather(*(store_under_test.fetched() for _ in range(3)))
    assert set(fetched) == {store_under_test.cache / store_under_test.ref.digest}
    assert [path.name for path in store_under_test.cache.iterdir()] == [store_under_test.ref.digest]


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "model.sig"])
async def test_a_flipped_bit_in_any_file_is_refused(store_under_test: StoreUnderTest, name: str) -> None:
    file = store_under_test.stored / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    await store_under_test.refused(store_under_test.ref.digest[:12])


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "model.sig"])
async def test_a_truncated_or_missing_file_is_refused(store_under_test: StoreUnderTest, name: str) -> None:
    file = store_under_test.stored / name
    file.write_bytes(file.read_bytes()[:-3])
    await store_under_test.refused(store_under_test.ref.digest[:12])
    file.unlink()
    await store_under_test.refused("a file of it is missing")


async def test_an_extra_file_or_a_link_in_the_cache_is_refused(store_under_test: StoreUnderTest) -> None:
    (await store_under_test.fetched() / "extra.pkl").write_bytes(b"\x80\x04")
    await store_under_test.refused("its files are not those of the manifest")
    link = await store_under_test.fetched() / "fp32.onnx"
    link.unlink()
    link.symlink_to(store_under_test.stored / "fp32.onnx")
    await store_under_test.refused("fp32.onnx is not a plain file")


async def test_a_signature_of_another_key_or_of_another_artifact_is_refused(
    store_under_test: StoreUnderTest, tmp_path: Path
) -> None:
    other = StoreUnderTest(tmp_path / "other")
    foreign = await other.store.put(folder_of(tmp_path / "foreign"), "chapters/run-1")
    await store_under_test.refused(
        "not trusted here", store_under_test.ref.model_copy(update={"signer": foreign.signer})
    )
    shutil.copy(other.stored / "model.sig", store_under_test.stored / "model.sig")
    await store_under_test.refused("its signature does not fit")
    second = await store_under_test.store.put(
        folder_of(tmp_path / "second", {**FILES, "millrace.json": b"[]"}), "chapters/run-2"
    )
    shutil.copy(store_under_test.root / "chapters" / "run-2" / "model.sig", store_under_test.stored / "model.sig")
    await store_under_test.refused("its signature does not fit")
    assert second.digest != store_under_test.ref.digest


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
async def test_what_lies_outside_the_store_is_never_looked_at(store_under_test: StoreUnderTest, uri: str) -> None:
    there = store_under_test.ref.model_copy(update={"uri": uri.format(root=f"file://{store_under_test.root}")})
    await store_under_test.refused("it lies outside the artifact store", there)
    with pytest.raises(ArtifactRefused, match="it lies outside the artifact store"):
        await store_under_test.store.read(there, "millrace.json")


async def test_one_file_is_read_and_checked(store_under_test: StoreUnderTest) -> None:
    assert await store_under_test.store.read(store_under_test.ref, "millrace.json") == b"{}"
    with pytest.raises(ArtifactRefused, match="it has no weights"):
        await store_under_test.store.read(store_under_test.ref, "weights.bin")
    (store_under_test.stored / "millrace.json").write_bytes(b"[]")
    with pytest.raises(ArtifactRefused, match=r"millrace.json is not what the manifest says"):
        await store_under_test.store.read(store_under_test.ref, "millrace.json")


async def test_putting_the_same_name_again_replaces_it(store_under_test: StoreUnderTest, tmp_path: Path) -> None:
    second = await store_under_test.store.put(folder_of(tmp_path / "again", {"millrace.json": b"[]"}), "chapters/run-1")
    assert (await store_under_test.store.fetch(second, store_under_test.cache) / "millrace.json").read_bytes() == b"[]"
    with pytest.raises(ArtifactRefused, match="its manifest is not the one that was announced"):
        await store_under_test.store.fetch(store_under_test.ref, tmp_path / "another cache")
