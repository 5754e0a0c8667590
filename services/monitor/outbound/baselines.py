"""Reads baselines from the artifact store, and tests beside the event loop."""

import asyncio
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np

from services.contracts.artifact import Precision, baseline_file
from services.kit.storage.artifacts import ArtifactRefused, ArtifactStore
from services.monitor.domain.deployments import PrimaryVersion
from services.monitor.domain.drift import SMALLEST_SAMPLE, Floats
from services.monitor.errors import BaselineRefused

T = TypeVar("T")

CACHED: Final = 8
LARGEST_BYTES: Final = 256 * 1024 * 1024


class StoredBaselines:
    """`ports.Baselines`; the last few stay in memory. What is read has been checked against the artifact's manifest."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._cached: OrderedDict[tuple[str, Precision], Floats] = OrderedDict()

    async def load(self, primary: PrimaryVersion, variant: Precision) -> Floats:
        key = (primary.artifact.digest, variant)
        if key not in self._cached:
            try:
                content = await self._artifacts.read(primary.artifact, baseline_file(variant))
            except ArtifactRefused as refused:
                raise BaselineRefused(version=primary.version, variant=variant, problem=str(refused)) from refused
            self._cached[key] = read_baseline(content, primary.version, variant)
            while len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        self._cached.move_to_end(key)
        return self._cached[key]


def read_baseline(content: bytes, version: int, variant: Precision) -> Floats:
    """float32 [rows, width] of a .npy file. Raises BaselineRefused; never unpickles."""

    def refused(problem: str) -> BaselineRefused:
        return BaselineRefused(version=version, variant=variant, problem=problem)

    if len(content) > LARGEST_BYTES:
        raise refused(f"it is larger than {LARGEST_BYTES} bytes")
    try:
        rows_RD = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise refused("it is not a plain .npy file") from error
    if not isinstance(rows_RD, np.ndarray) or rows_RD.ndim != 2 or rows_RD.dtype != np.float32:
        raise refused("it is not a matrix of float32")
    if len(rows_RD) < SMALLEST_SAMPLE or not np.isfinite(rows_RD).all():
        raise refused("it has too few rows, or values that are not finite")
    return rows_RD


async def on_a_thread(work: Callable[[], T], /) -> T:
    """`ports.Offload`: numpy lets go of the interpreter while it works."""
    return await asyncio.to_thread(work)
