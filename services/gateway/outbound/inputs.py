"""The files that batches are made of: under the allowed roots, read some rows at a time, in threads."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

from services.gateway.domain.batches import BatchSpec
from services.gateway.domain.rows import InputRow
from services.kit.rows import MissingColumn, Record, Records, RowLimits, UnusableData, field_of, locate


class RootedFiles:
    """`gateway.ports.Inputs`."""

    def __init__(self, roots: Sequence[Path], limits: RowLimits) -> None:
        self._roots = roots
        self._limits = limits

    async def check(self, uri: str) -> None:
        def look() -> None:
            with Records(locate(uri, self._roots), "jsonl", self._limits):
                return

        await asyncio.to_thread(look)

    @asynccontextmanager
    async def open(self, spec: BatchSpec) -> "AsyncIterator[OpenFile]":
        path = await asyncio.to_thread(locate, spec.uri, self._roots)
        with await asyncio.to_thread(Records, path, spec.format, self._limits) as records:
            yield OpenFile(records, spec)


class OpenFile:
    """`gateway.ports.OpenInput`."""

    def __init__(self, records: Records, spec: BatchSpec) -> None:
        self.stamp, self.size_bytes = records.stamp, records.size_bytes
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
    except MissingColumn as refusal:
        if spec.format == "csv":
            raise
        return InputRow(number, "", refusal)
    except UnusableData as refusal:
        return InputRow(number, "", refusal)
