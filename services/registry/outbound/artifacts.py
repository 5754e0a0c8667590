"""`registry.ports.Artifacts` on the artifact store."""

import tempfile
from pathlib import Path

from services.contracts.artifact import ArtifactRef
from services.kit.storage.artifacts import ArtifactStore


class CheckedArtifacts:
    """Fetches into a folder that is thrown away: the registry keeps no artifact."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    async def verify(self, ref: ArtifactRef) -> None:
        with tempfile.TemporaryDirectory(prefix="millrace-check-") as folder:
            await self._store.fetch(ref, Path(folder))
