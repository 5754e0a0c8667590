"""All loaded versions of a replica, each with the engine that its kind of model needs."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from pydantic import ValidationError

from services.contracts.artifact import SPEC_FILE, DecoderSpec, Precision, parse_spec
from services.inference.domain.scoring import EngineEvent, EngineRequest, Loaded
from services.inference.domain.versions import VersionKey
from services.inference.errors import ArtifactRefused
from services.inference.outbound.generation.engines import GenerationEngines
from services.inference.outbound.pool import WorkerPool


class EnginesByTask:
    """`Engines`: encoders share a pool of worker threads, and each model that generates has a thread of its own."""

    def __init__(self, encoders: WorkerPool, decoders: GenerationEngines) -> None:
        self._encoders = encoders
        self._decoders = decoders

    @property
    def queued(self) -> int:
        """Items that wait or run: texts, and sequences that are generated."""
        return self._encoders.queued + self._decoders.queued

    @property
    def capacity(self) -> int:
        return self._encoders.capacity + self._decoders.capacity

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        """Raises ArtifactRefused when its engine cannot open it. It answers from now on."""
        try:
            spec = parse_spec(await asyncio.to_thread((folder / SPEC_FILE).read_bytes))
        except ValidationError as error:
            raise ArtifactRefused("bad_spec", "its description cannot be read") from error
        engines = self._decoders if isinstance(spec, DecoderSpec) else self._encoders
        await engines.load(key, folder, precision)

    async def warm(self, key: VersionKey) -> None:
        await self._engines(key).warm(key)

    async def unload(self, key: VersionKey) -> None:
        await self._engines(key).unload(key)

    def loaded(self, key: VersionKey) -> Loaded:
        return self._engines(key).loaded(key)

    def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        return self._engines(request.key).submit(request)

    def _engines(self, key: VersionKey) -> WorkerPool | GenerationEngines:
        return self._decoders if self._decoders.has(key) else self._encoders
