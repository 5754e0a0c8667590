"""From addresses to this machine's disk: the data set, the labelled traffic and the champion of a run."""

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import fsspec

from services.contracts.errors import Unavailable
from services.kit.core.tabular import MissingFile, UnsupportedAddress, local_path
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import ChampionRef, TrainingSpec
from services.trainer.stages.base_model import pinned
from services.trainer.stages.spec import Champion, RunSpec

DATA_FILE: Final = "data"
CHAMPION_FOLDER: Final = "champion"
_BY_ADDRESS: Final = {"champion"}


class DataStoreDown(Unavailable):
    """The store of the data set does not answer."""


def localise(spec: TrainingSpec, artifacts: ArtifactStore) -> RunSpec:
    """What lies elsewhere is fetched into the run's working folder, once for all its attempts.

    Raises MissingFile, UnsupportedAddress, DataStoreDown, ArtifactRefused, ArtifactStoreDown; HubUnreachable and
    NotOnTheHub for a base model that a hub has.
    """
    working = local_path(spec.working_uri)
    if working is None:
        raise UnsupportedAddress(scheme=urlsplit(spec.working_uri).scheme[:20] or "a bare path")
    shared = (RunSpec.model_fields.keys() & TrainingSpec.model_fields.keys()) - _BY_ADDRESS
    return RunSpec(
        **spec.model_dump(include=shared - {"base_model"}),
        base_model=pinned(spec.base_model),
        data=_fetched(spec.data_uri, working / DATA_FILE),
        feedback=local_path(spec.feedback_uri) if spec.feedback_uri else None,
        champion=_champion(spec.champion, artifacts, working) if spec.champion else None,
    )


def _fetched(uri: str, target: Path) -> Path:
    if (local := local_path(uri)) is not None:
        return local
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    try:
        store, path = fsspec.core.url_to_fs(uri)
        store.get_file(path, str(partial))
    except (ImportError, ValueError) as error:
        raise UnsupportedAddress(scheme=urlsplit(uri).scheme[:20]) from error
    except FileNotFoundError as error:
        raise MissingFile from error
    except OSError as error:
        raise DataStoreDown from error
    return partial.replace(target)


def _champion(champion: ChampionRef, artifacts: ArtifactStore, working: Path) -> Champion:
    folder = asyncio.run(artifacts.fetch(champion.artifact, working / CHAMPION_FOLDER))
    return Champion(version=champion.version, folder=folder, precision=champion.precision)
