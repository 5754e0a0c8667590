"""The artifact store of the house: whole artifacts in memory, each fixed by its hash; nothing is signed here."""

import hashlib
from pathlib import Path
from typing import Final

from services.contracts.artifact import MANIFEST_FILE, ArtifactRef, Manifest, ManifestFile
from services.kit.storage.artifacts import ArtifactRefused, ArtifactStore

ROOT: Final = "memory://artifacts"
SIGNER: Final = "virtual-key"


class InMemoryArtifactStore(ArtifactStore):
    """Keeps the promises of the kit's store, but for the signature."""

    def __init__(self, folder: Path) -> None:
        super().__init__(ROOT, folder)
        self._folder = folder
        self._retained: dict[str, dict[str, bytes]] = {}

    async def put(self, folder: Path, name: str) -> ArtifactRef:
        content = _read(folder)
        files = [ManifestFile(name=n, size_bytes=len(c), sha256=_hash(c)) for n, c in content.items()]
        manifest = Manifest(files=files).model_dump_json(indent=1).encode()
        digest = _hash(manifest)
        self._retained[digest] = {**content, MANIFEST_FILE: manifest}
        size = sum(file.size_bytes for file in files)
        return ArtifactRef(uri=f"{ROOT}/{name}", digest=digest, signer=SIGNER, size_bytes=size)

    async def fetch(self, ref: ArtifactRef, cache: Path) -> Path:
        target = cache / ref.digest
        if not target.exists():
            content = self._content(ref)
            target.mkdir(parents=True)
            for name, data in content.items():
                (target / name).write_bytes(data)
        return target

    async def read(self, ref: ArtifactRef, name: str) -> bytes:
        content = self._content(ref)
        if name not in content:
            raise ArtifactRefused(digest=ref.digest[:12], problem=f"it has no {name}")
        return content[name]

    def signer(self) -> str:
        return SIGNER

    async def verify(self, ref: ArtifactRef) -> None:
        """The registry's port."""
        self._content(ref)

    def _content(self, ref: ArtifactRef) -> dict[str, bytes]:
        if ref.digest not in self._retained:
            raise ArtifactRefused(digest=ref.digest[:12], problem="it is not on the shelf")
        return self._retained[ref.digest]


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != MANIFEST_FILE}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class FetchedArtifacts:
    """Inference's port: copies of the shelf's artifacts in a folder of the replica."""

    def __init__(self, artifact_store: InMemoryArtifactStore, cache: Path) -> None:
        self._artifact_store = artifact_store
        self._cache = cache

    async def fetch(self, ref: ArtifactRef) -> Path:
        return await self._artifact_store.fetch(ref, self._cache)

    async def prune(self, keep: set[str]) -> None:
        """Keeps everything: the story is short."""
