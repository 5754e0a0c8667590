"""The upload store on a folder and on another fsspec store: whole or not at all, once, and swept after crashes."""

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from services.contracts.errors import Kind
from services.kit.core.clock import SystemClock, VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.storage.uploads import StoreFull, TooManyUploads, UnknownUpload, UploadStore, UploadStoreDown

CONTENT = b'{"text": "old iron", "label": "metal"}\n' * 20_000
HASH = hashlib.sha256(CONTENT).hexdigest()


def store_at(root: str, **knobs: Any) -> UploadStore:
    return UploadStore(root, SystemClock(), SeededIds(1), **knobs)


@pytest.fixture(params=["folder", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield f"file://{tmp_path}/with a blank"
        return
    yield "memory://uploads"
    fsspec.filesystem("memory").store.clear()


def files(root: str) -> list[str]:
    system, path = fsspec.core.url_to_fs(root)
    return sorted(name.removeprefix(path.rstrip("/") + "/") for name in system.find(path))


async def put(store: UploadStore, content: bytes = CONTENT, dataset: str = "texts") -> tuple[str, bool]:
    async with store.begin() as upload:
        for start in range(0, len(content), 100_000):
            await upload.write(content[start : start + 100_000])
        return await upload.keep("acme", dataset, "jsonl")


async def test_the_same_content_twice_is_stored_once(root: str) -> None:
    store = store_at(root)
    uri, there = await put(store)
    assert (await put(store)) == (uri, True)
    assert not there
    assert files(root) == [f"acme/texts/{HASH}.jsonl"]
    system, path = fsspec.core.url_to_fs(uri.replace("%20", " "))
    assert system.cat_file(path) == CONTENT


async def test_two_at_once_with_one_content_both_end_well(root: str) -> None:
    store = store_at(root)
    assert len({uri for uri, _ in await asyncio.gather(put(store), put(store))}) == 1
    assert files(root) == [f"acme/texts/{HASH}.jsonl"]


async def test_what_breaks_off_leaves_nothing(root: str) -> None:
    store = store_at(root)
    async with store.begin() as upload:
        await upload.write(CONTENT)
        assert len(files(root)) == 1
    assert files(root) == []

    async def endless() -> None:
        async with store.begin() as upload:
            while True:
                await upload.write(CONTENT)

    task = asyncio.create_task(endless())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert files(root) == []


async def test_more_uploads_than_the_limit_are_refused_and_not_queued(root: str) -> None:
    store = store_at(root, limit=1)
    async with store.begin():
        with pytest.raises(TooManyUploads) as refused:
            await put(store)
    assert refused.value.body().retry_after_seconds
    await put(store)


async def test_what_a_crash_left_is_swept_up_and_what_is_under_way_is_not(tmp_path: Path) -> None:
    clock = VirtualClock(SystemClock().now())
    store = UploadStore(f"file://{tmp_path}", clock, SeededIds(1), partial_seconds=60)
    assert await store.sweep() == 0
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial/upload-dead").write_bytes(b"half of it")
    assert await store.sweep() == 0
    await clock.advance(timedelta(minutes=2).total_seconds())
    assert await store.sweep() == 1
    assert files(f"file://{tmp_path}") == []


async def test_a_tenants_contents_are_found_by_address_and_another_tenants_are_not(tmp_path: Path) -> None:
    folder, memory = store_at(f"file://{tmp_path}/u"), store_at("memory://u")
    uri, _ = await put(memory)
    assert folder.folder_of("acme") == tmp_path / "u/acme"
    assert memory.folder_of("acme") is None
    assert memory.holds(uri, "acme")
    others = (
        "memory://u/acme/../other/x",
        "memory://u/acme/x/y/z",
        "memory://u/acme/.partial/x",
        "memory://v/acme/x/y",
    )
    for other in (*others, "memory://u/acme/x/y::http://z", f"file://{tmp_path}/u/acme/x/y"):
        assert not memory.holds(other, "acme")
    assert not memory.holds(uri, "other")
    assert not folder.holds(uri, "acme")
    await memory.fetch(uri, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == CONTENT
    with pytest.raises(UnknownUpload):
        await memory.fetch("memory://u/acme/texts/nothing.jsonl", tmp_path / "other")
    fsspec.filesystem("memory").store.clear()


async def test_a_full_store_says_so(full_store: str) -> None:
    with pytest.raises(StoreFull) as refused:
        await put(store_at(full_store))
    assert (refused.value.kind, refused.value.retryable) == (Kind.OVERLOADED, False)


@pytest.mark.parametrize("root", ["nonsense://u", "s3://no-driver-here"])
async def test_a_store_that_nothing_here_speaks_to_does_not_answer(root: str) -> None:
    with pytest.raises(UploadStoreDown):
        await put(store_at(root))
    with pytest.raises(UploadStoreDown):
        await store_at(root).sweep()


async def test_a_disk_that_fills_up_on_the_way_says_so_and_has_its_free_bytes_again(small_disk: Path) -> None:
    store = store_at(f"file://{small_disk}")
    with pytest.raises(StoreFull):
        await put(store, CONTENT * 4)
    assert files(f"file://{small_disk}") == []
    await put(store, CONTENT)
