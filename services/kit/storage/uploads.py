"""The upload store: contents handed over by a door, each kept once under its SHA-256, on one fsspec root.

```
<root>/<tenant>/<data set>/<sha-256>.<format>   whole and on disk
<root>/.partial/<upload>                        still being written; what a crash left there is swept up
```
"""

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from services.contracts.content import Content
from services.contracts.errors import NotFound, Overloaded, Unavailable
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.core.log import logger

PARTIAL: Final = ".partial"
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RETRY_SECONDS: Final = 5.0
WRITE_BYTES: Final = 256 * 1024
SWEEP_EVERY_SECONDS: Final = 600.0
T = TypeVar("T")


class TooManyUploads(Overloaded):
    """{queued} uploads are under way already, which is the limit."""

    hint = "retry after the time given"


class StoreFull(Overloaded):
    """The upload store is full."""

    hint = "free space in it, or give it more (MILLRACE_UPLOAD_STORE)"
    retryable = False


class UploadStoreDown(Unavailable):
    """The upload store does not answer."""


class UnknownUpload(NotFound):
    """The upload store has no such content."""


class Upload:
    """One content on its way into the store. A lock keeps a write that was left behind from outliving its file."""

    def __init__(self, store: "UploadStore", name: str) -> None:
        self._store = store
        self._name = name
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()
        self._size = 0
        self._gathered = bytearray()
        self._file: Any = None

    async def write(self, chunk: bytes) -> None:
        """Small parts are gathered before they go to the disk. Raises StoreFull or UploadStoreDown."""
        self._gathered += chunk
        if len(self._gathered) >= WRITE_BYTES:
            await self._flush()

    async def content(self) -> Content:
        """What was written so far. Raises StoreFull or UploadStoreDown."""
        await self._flush()
        return Content(self._digest.hexdigest(), self._size)

    async def _flush(self) -> None:
        part, self._gathered = bytes(self._gathered), bytearray()
        await self._store.on_thread(lambda: self._write(part))

    async def keep(self, tenant: str, dataset: str, form: str) -> tuple[str, bool]:
        """The content's address once it is whole and on disk, and whether it lay there before.

        Raises StoreFull or UploadStoreDown.
        """
        await self._flush()
        return await self._store.on_thread(lambda: self._keep(f"{tenant}/{dataset}", form))

    async def open(self) -> None:
        """Raises StoreFull or UploadStoreDown."""
        await self._store.on_thread(self._open)

    async def discard(self) -> None:
        """Leaves nothing of it behind, unless it was kept."""
        with suppress(UploadStoreDown, StoreFull):
            await self._store.on_thread(self._discard)

    def _open(self) -> None:
        store, root = self._store.filesystem()
        store.makedirs(f"{root}/{PARTIAL}", exist_ok=True)
        self._file = store.open(self._partial(root), "wb")

    def _write(self, chunk: bytes) -> None:
        with self._lock:
            if self._file is None:
                return  # discarded meanwhile
            self._file.write(chunk)
            self._digest.update(chunk)
            self._size += len(chunk)

    def _keep(self, folder: str, form: str) -> tuple[str, bool]:
        store, root = self._store.filesystem()
        inside = f"{folder}/{self._digest.hexdigest()}.{form}"
        with self._lock:
            self._close(durable=isinstance(store, LocalFileSystem))
            store.makedirs(f"{root}/{folder}", exist_ok=True)
            there = bool(store.exists(f"{root}/{inside}"))
            store.mv(self._partial(root), f"{root}/{inside}")
            if isinstance(store, LocalFileSystem):
                for parent in (Path(root, folder), Path(root, folder).parent, Path(root)):
                    _sync_folder(parent)
        return self._store.uri(inside), there

    def _close(self, *, durable: bool) -> None:
        file, self._file = self._file, None
        try:
            if durable:
                file.flush()
                os.fsync(file.fileno())
        finally:
            file.close()

    def _discard(self) -> None:
        store, root = self._store.filesystem()
        with self._lock:
            if self._file is not None:
                with suppress(OSError):  # a full disk refuses what was still in the buffer
                    self._close(durable=False)
            with suppress(FileNotFoundError):
                store.rm_file(self._partial(root))

    def _partial(self, root: str) -> str:
        return f"{root}/{PARTIAL}/{self._name}"


class UploadStore:
    """All file work runs on threads of its own, so that no slow disk holds up anything else."""

    def __init__(self, root: str, clock: Clock, ids: Ids, *, limit: int = 4, partial_seconds: float = 3600.0) -> None:
        """At most `limit` uploads at once; a partial one that is older than `partial_seconds` was left by a crash."""
        self._root = root.rstrip("/")
        self._clock = clock
        self._ids = ids
        self._limit = limit
        self._partial_seconds = partial_seconds
        self._under_way = 0
        self._threads = ThreadPoolExecutor(max_workers=limit + 1, thread_name_prefix="uploads")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Upload]:
        """An upload that is gone when the block ends, unless it was kept. Raises TooManyUploads, StoreFull."""
        if self._under_way >= self._limit:
            raise TooManyUploads(queued=self._under_way, retry_after_seconds=RETRY_SECONDS)
        self._under_way += 1
        upload = Upload(self, self._ids.new("upload"))
        try:
            await upload.open()
            yield upload
        finally:
            self._under_way -= 1
            await asyncio.shield(upload.discard())

    def folder_of(self, tenant: str) -> Path | None:
        """Where the tenant's contents lie as files, links resolved; None where the store is not a folder."""
        if not self._root.startswith("file://"):
            return None
        return Path(self._root.removeprefix("file://")).resolve() / tenant

    def holds(self, uri: str, tenant: str) -> bool:
        """Whether the address is of a content of this tenant, in a store that is not a folder."""
        mine = f"{self._root}/{tenant}/"
        parts = uri.removeprefix(mine).split("/")
        plain = len(parts) == 2 and all(part and not part.startswith(".") for part in parts)
        return self.folder_of(tenant) is None and uri.startswith(mine) and plain and "::" not in uri

    async def fetch(self, uri: str, target: Path) -> None:
        """Copies a content that `holds` said yes to. Raises UnknownUpload or UploadStoreDown."""
        await self.on_thread(lambda: self._fetch(uri, target))

    async def sweep(self) -> int:
        """How many partial uploads a crash had left. Raises UploadStoreDown."""
        return await self.on_thread(self._sweep)

    async def run(self) -> None:
        """A part of a service: sweeps at start and every ten minutes."""
        while True:
            try:
                if swept := await self.sweep():
                    logger.info("%d partial uploads were left by a crash, and are gone", swept)
            except (UploadStoreDown, StoreFull) as error:
                logger.warning("partial uploads are swept up later: %s", error)
            await self._clock.sleep(SWEEP_EVERY_SECONDS)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def uri(self, inside: str) -> str:
        """The address of what lies in the store under this name."""
        if self._root.startswith("file://"):
            return Path(self._root.removeprefix("file://"), inside).as_uri()
        return f"{self._root}/{inside}"

    def filesystem(self) -> tuple[Any, str]:
        """Raises UploadStoreDown where nothing here speaks to such a store."""
        try:
            store, root = fsspec.core.url_to_fs(self._root)
        except (ImportError, ValueError) as error:
            logger.error("MILLRACE_UPLOAD_STORE cannot be used: %s", error)
            raise UploadStoreDown from error
        return store, str(root).rstrip("/")

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Raises StoreFull or UploadStoreDown for what the store raised."""

        def call() -> T:
            with _store_errors():
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _fetch(self, uri: str, target: Path) -> None:
        store, path = fsspec.core.url_to_fs(uri)
        partial = target.with_name(f"{target.name}{PARTIAL}")
        try:
            store.get_file(path, str(partial))
        except FileNotFoundError as error:
            raise UnknownUpload from error
        partial.replace(target)

    def _sweep(self) -> int:
        store, root = self.filesystem()
        if not store.exists(f"{root}/{PARTIAL}"):
            return 0
        oldest, swept = self._clock.now() - timedelta(seconds=self._partial_seconds), 0
        for path in store.ls(f"{root}/{PARTIAL}", detail=False):
            with suppress(FileNotFoundError):  # another gateway was quicker
                touched = store.modified(path)
                if (touched if touched.tzinfo else touched.replace(tzinfo=UTC)) < oldest:
                    store.rm_file(path)
                    swept += 1
        return swept


@contextmanager
def _store_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull from error
        raise UploadStoreDown from error


def _sync_folder(folder: Path) -> None:
    """A name survives a power cut once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
