"""The artifact store with this replica's local copies."""

import asyncio
import shutil
from pathlib import Path

from services.contracts.artifact import ArtifactRef
from services.kit.storage.artifacts import ArtifactRefused, ArtifactStore


class CachedArtifacts:
    """Copies in `cache`, one folder a digest; each is checked again whenever it is asked for."""

    def __init__(self, store: ArtifactStore, cache: Path) -> None:
        self._store = store
        self._cache = cache

    async def fetch(self, ref: ArtifactRef) -> Path:
        """A folder whose files, hash and signature have been checked.

        Raises the store's ArtifactRefused, and ArtifactStoreDown.
        """
        had_copy = await asyncio.to_thread((self._cache / ref.digest).exists)
        try:
            return await self._store.fetch(ref, self._cache)
        except ArtifactRefused:
            if not had_copy:
                raise
            # The local copy has gone bad, and the store has removed it; its own may be whole.
            return await self._store.fetch(ref, self._cache)

    async def prune(self, keep: set[str]) -> None:
        """Drops every copy but those of the digests in `keep`, what a broken fetch left behind included."""
        await asyncio.to_thread(self._prune, keep)

    def _prune(self, keep: set[str]) -> None:
        if not self._cache.is_dir():
            return
        for folder in self._cache.iterdir():
            if folder.name.removesuffix(".partial") not in keep:
                shutil.rmtree(folder, ignore_errors=True)
