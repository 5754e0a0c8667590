"""The files that batches are made of: under the allowed roots or uploaded, read some rows at a time, in threads."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from services.gateway.domain.batches import BatchSpec
from services.gateway.domain.rows import InputRow
from services.kit.core.tabular import (
    MissingColumn,
    MissingFile,
    Record,
    Records,
    RowLimits,
    UnusableData,
    field_of,
    locate,
)
from services.kit.storage.uploads import UnknownUpload, UploadStore


class RootedFiles:
    """`gateway.ports.Inputs`. What a tenant has uploaded is for its own batches alone."""

    def __init__(self, roots: Sequence[Path], limits: RowLimits, uploads: UploadStore) -> None:
        self._roots = roots
        self._limits = limits
        self._uploads = uploads

    async def check(self, uri: str, tenant: str) -> None:
        async with self._located(uri, tenant) as path:

            def look() -> None:
                with Records(path, "jsonl", self._limits):
                    return

            await asyncio.to_thread(look)

    @asynccontextmanager
    async def open(self, spec: BatchSpec, tenant: str) -> "AsyncIterator[OpenFile]":
        async with self._located(spec.uri, tenant) as path:
            with await asyncio.to_thread(Records, path, spec.format, self._limits) as records:
                # A fetched copy is another file each time; the content behind the address is the same for ever.
                yield OpenFile(records, spec, spec.uri if self._uploads.holds(spec.uri, tenant) else records.stamp)

    @asynccontextmanager
    async def _located(self, uri: str, tenant: str) -> AsyncIterator[Path]:
        if not self._uploads.holds(uri, tenant):
            mine = self._uploads.folder_of(tenant)
            roots = (*self._roots, mine) if mine is not None else self._roots
            yield await asyncio.to_thread(locate, uri, roots)
            return
        with tempfile.TemporaryDirectory(prefix="millrace-batch-") as folder:
            fetched = Path(folder) / "input"
            try:
                await self._uploads.fetch(uri, fetched)
            except UnknownUpload as error:
                raise MissingFile from error
            yield fetched


class OpenFile:
    """`gateway.ports.OpenInput`."""

    def __init__(self, records: Records, spec: BatchSpec, stamp: str) -> None:
        self.stamp, self.size_bytes = stamp, records.size_bytes
        self._records = records
        self._rows = self._read(spec)

    @property
    def read_bytes(self) -> int:
        return self._records.read_bytes

    async def take(self, count: int) -> list[InputRow]:
        return await asyncio.to_thread(lambda: list(islice(self._rows, count)))

    def _read(self, spec: BatchSpec) -> Iterator[InputRow]:
        for number, record in self._records:
            yield _row(number, record, spec)


def _row(number: int, record: Record, spec: BatchSpec) -> InputRow:
    """Raises MissingColumn where a header lacks it: then every row would."""
    if isinstance(record, UnusableData):
        return InputRow(number, "", record)
    try:
        return InputRow(number, field_of(number, record, spec.text_column))
    except MissingColumn as error:
        if spec.format == "csv":
            raise
        return InputRow(number, "", error)
    except UnusableData as error:
        return InputRow(number, "", error)
