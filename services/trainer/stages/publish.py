"""Stage 7: the artifact is signed and put into the store, where whoever serves it will fetch it."""

import asyncio

from services.contracts.artifact import ArtifactRef
from services.kit.core import telemetry
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import ARTIFACT_FOLDER, Stage
from services.trainer.stages.folder import Finished, RunFolder, hash_of
from services.trainer.stages.package import Packaged
from services.trainer.stages.spec import RunSpec


class Published(Finished):
    artifact: ArtifactRef


def publish(folder: RunFolder, spec: RunSpec, packaged: Packaged, store: ArtifactStore, name: str) -> Published:
    """Puts `artifact/` into the store as `name`. Raises ArtifactStoreDown."""
    with telemetry.span("put artifact", attributes={"millrace.run.id": spec.run}):
        artifact = asyncio.run(store.put(folder / ARTIFACT_FOLDER, name))
    return Published(inputs=publish_inputs(packaged, name), artifact=artifact)


def publish_inputs(packaged: Packaged, name: str) -> str:
    """The hash of all that publishing depends on; the name too, which each attempt has of its own."""
    return hash_of(Stage.PUBLISH, packaged.inputs, name)
