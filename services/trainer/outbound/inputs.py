"""`trainer.ports.RunInputs`: allowed folders, uploads, and the folders of runs, all named by address."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services.kit.core.tabular import locate
from services.kit.storage.uploads import UploadStore
from services.trainer.domain.datasets import Example
from services.trainer.outbound.workspace import Workspace


class StoredInputs:
    def __init__(self, workspace: Workspace, uploads: UploadStore, roots: Sequence[Path], artifact_store: str) -> None:
        self._workspace = workspace
        self._uploads = uploads
        self._roots = roots
        self._artifact_store = artifact_store

    async def data(self, tenant: str, uri: str) -> str:
        """Under a root, or among the tenant's own uploads. Raises OutsideRoots, MissingFile, UnsupportedAddress."""
        if self._uploads.holds(uri, tenant):
            return uri
        mine = self._uploads.folder_of(tenant)
        roots = (*self._roots, mine) if mine is not None else self._roots
        return (await asyncio.to_thread(locate, uri, roots)).as_uri()

    async def write_examples(self, run: str, examples: Sequence[Example]) -> str:
        return (await asyncio.to_thread(self._workspace.write_examples, run, examples)).as_uri()

    def working_uri(self, run: str) -> str:
        return self._workspace.run_folder(run).as_uri()

    def artifact_store(self) -> str:
        return self._artifact_store
