"""Where batches write: a folder of the tenant and the batch under one fsspec root. All file work runs in threads.

ROOT/TENANT/BATCH/part-000001-FENCE.jsonl    while it runs; only parts that the database counts are read
ROOT/TENANT/BATCH/result-FENCE/output.jsonl, manifest.json
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Any, Final

import fsspec

from services.gateway.domain.batches import Batch, Outcome, Part
from services.gateway.domain.rows import manifest
from services.gateway.errors import ResultsDamaged, ResultsDown
from services.kit.core.log import logger

CHUNK: Final = 256 * 1024
OUTPUT: Final = "output.jsonl"
MANIFEST: Final = "manifest.json"


class StoredResults:
    """`gateway.ports.Results`."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    async def write_part(self, batch: Batch, part: Part, content: bytes) -> None:
        await asyncio.to_thread(self._write, f"{self._folder(batch)}/{part.name}", [content])

    async def join(self, batch: Batch, parts: Sequence[Part], fence: int) -> Outcome:
        return await asyncio.to_thread(self._join, batch, parts, fence)

    async def tidy(self, batch: Batch) -> None:
        await asyncio.to_thread(self._tidy, batch)

    async def read(self, outcome: Outcome) -> AsyncIterator[bytes]:
        opened = await asyncio.to_thread(_opened, outcome.output_uri)
        with closing(opened):
            while chunk := await asyncio.to_thread(opened.read, CHUNK):
                yield chunk

    def _folder(self, batch: Batch) -> str:
        return f"{self._root}/{batch.tenant}/{batch.id}"

    def _join(self, batch: Batch, parts: Sequence[Part], fence: int) -> Outcome:
        folder = f"{self._folder(batch)}/result-{fence}"
        digest, size = hashlib.sha256(), 0
        try:
            store, path = fsspec.core.url_to_fs(f"{folder}/{OUTPUT}")
            store.makedirs(store._parent(path), exist_ok=True)
            with store.open(path, "wb") as output:
                for part in parts:
                    content = self._part(batch, part)
                    output.write(content)
                    digest.update(content)
                    size += len(content)
                _settle(output)
        except OSError as error:
            raise ResultsDown(what="the store of the results") from error
        content = manifest(batch, sha256=digest.hexdigest(), size_bytes=size)
        self._write(f"{folder}/{MANIFEST}", [content])
        return Outcome(
            output_uri=f"{folder}/{OUTPUT}",
            manifest_uri=f"{folder}/{MANIFEST}",
            size_bytes=size,
            sha256=digest.hexdigest(),
        )

    def _part(self, batch: Batch, part: Part) -> bytes:
        store, path = fsspec.core.url_to_fs(f"{self._folder(batch)}/{part.name}")
        try:
            content: bytes = store.cat_file(path)
        except FileNotFoundError as error:
            raise ResultsDamaged from error
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise ResultsDamaged
        return content

    def _write(self, uri: str, chunks: Sequence[bytes]) -> None:
        try:
            store, path = fsspec.core.url_to_fs(uri)
            store.makedirs(store._parent(path), exist_ok=True)
            with store.open(path, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                _settle(file)
        except OSError as error:
            raise ResultsDown(what="the store of the results") from error

    def _tidy(self, batch: Batch) -> None:
        output_folder = batch.outcome.output_uri.removesuffix(f"/{OUTPUT}").rpartition("/")[2] if batch.outcome else ""
        try:
            store, folder = fsspec.core.url_to_fs(self._folder(batch))
            if not store.exists(folder):
                return
            if not output_folder:
                store.rm(folder, recursive=True)
                return
            for path in store.ls(folder, detail=False):
                if path.rpartition("/")[2] != output_folder:
                    store.rm(path, recursive=True)
        except OSError as error:
            logger.warning("parts of %s are left behind: %s", batch.id, error)


def _opened(uri: str) -> Any:
    try:
        store, path = fsspec.core.url_to_fs(uri)
        return store.open(path, "rb")
    except OSError as error:
        raise ResultsDown(what="the store of the results") from error


def _settle(file: Any) -> None:
    """On disk, where the store is a folder; elsewhere closing it is the promise."""
    file.flush()
    if hasattr(file, "fileno"):
        os.fsync(file.fileno())
