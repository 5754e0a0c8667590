"""What a run works on, once its inputs lie on this machine's disk."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from services.contracts.artifact import Precision
from services.contracts.names import VersionNumber
from services.trainer.domain.spec import TrainingInputs


class Champion(BaseModel):
    """The version to be compared with: a verified artifact folder and the precision that is served of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: VersionNumber
    folder: Path
    precision: Precision


class RunSpec(TrainingInputs):
    """All that a run depends on, on this machine's disk: the same spec over the same files gives the same model."""

    data: Path
    feedback: Path | None = None
    champion: Champion | None = None
