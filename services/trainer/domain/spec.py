"""What an executor is given, and what the run that it executes leaves in its folder.

```
spec.json         `TrainingSpec`: all that the run depends on, by address
run.json          `RunSpec`: the same, with everything on this machine's disk
progress.jsonl    `Progress`, one a line, appended
result.json       `RunResult`, written last, when the run succeeded
failure.json      `Failure`, when it did not
artifact/         the model, as `services/contracts/artifact.py` lays it out
```
"""

from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.names import DatasetName, Label, ModelName, RunId, Sha256, Tenant, VersionNumber
from services.contracts.training import Columns, Comparison, Metrics, Recipe, VariantReport

SPEC_FILE: Final = "spec.json"
RUN_FILE: Final = "run.json"
PROGRESS_FILE: Final = "progress.jsonl"
RESULT_FILE: Final = "result.json"
FAILURE_FILE: Final = "failure.json"
LOG_FILE: Final = "run.log"
ARTIFACT_FOLDER: Final = "artifact"
PARENT_VARIABLE: Final = "MILLRACE_RUN_PARENT_PID"
"""Environment of what a run starts itself: who must stay alive for it."""
EXECUTION_VARIABLE: Final = "MILLRACE_EXECUTION"
TRACES_VARIABLE: Final = "MILLRACE_RUN_TRACES_FOLDER"
KEYS_VARIABLE: Final = "MILLRACE_RUN_KEYS_FOLDER"
"""Environment of the child process: whose work it is, where its spans are kept, and the keys that artifacts are
signed and checked with. They belong to the machine, not to the run, so that no spec holds them."""
DEFAULT_BASE_MODEL: Final = "all-MiniLM-L6-v2"
BASE_MODEL_TEXT: Final = "a packaged name, a Hugging Face folder, or an id of a model hub (organisation/model@revision)"

BASE: Final = "base"
FEEDBACK: Final = "feedback"
"""The sources of rows, and the names of their slices in the scores."""


class Stage(StrEnum):
    """In the order in which they run."""

    PREPARE = "prepare"
    TRAIN = "train"
    EVALUATE = "evaluate"
    EXPORT = "export"
    COMPRESS = "compress"
    PACKAGE = "package"
    PUBLISH = "publish"


class Split(StrEnum):
    TRAIN = "train"
    TEST = "test"
    REFERENCE = "reference"


class ExitCode(IntEnum):
    """How the child process ended."""

    SUCCEEDED = 0
    INTERNAL = 1
    USAGE = 2
    DATA_REFUSED = 3
    OUT_OF_MEMORY = 4
    INTERRUPTED = 5
    """Told to stop: the checkpoint is written, and the failure says `interrupted`."""
    QUALITY_REFUSED = 6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Frozen):
    """Bounds on what a data set may cost."""

    max_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    max_rows: int = Field(default=500_000, ge=1)
    max_text_characters: int = Field(default=20_000, ge=1, description="a longer text is refused")
    max_labels: int = Field(default=1000, ge=2)
    min_rows_per_label: int = Field(default=10, ge=1, description="after cleaning")
    near_duplicate_rows: int = Field(default=100_000, ge=0, description="above it only exact duplicates are removed")
    memory_mib: int | None = Field(default=None, ge=1, description="resident memory of the run's process")


class Splitting(_Frozen):
    """How rows without an explicit split are dealt out."""

    largest_share: float = Field(
        default=0.25, gt=0, lt=0.5, description="of the base rows, for test and reference each"
    )
    feedback_test_share: float = Field(default=0.2, ge=0, lt=0.5)
    feedback_reference_share: float = Field(default=0.2, ge=0, lt=0.5)
    reference_feedback_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="least share of feedback in the reference rows: it stands for today's traffic",
    )


class Gates(_Frozen):
    """What a variant must hold to be served."""

    parity: float = Field(default=1e-3, gt=0, description="largest difference of a logit between torch and fp32 ONNX")
    int8_agreement: float = Field(default=0.95, ge=0, le=1)
    int8_f1_loss: float = Field(default=0.02, ge=0, le=1)
    int8_speedup: float = Field(default=1.0, ge=0)
    fp16_agreement: float = Field(default=0.99, ge=0, le=1)
    fp16_f1_loss: float = Field(default=0.01, ge=0, le=1)


class DataContent(_Frozen):
    """The file that a run read."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)
    rows: int | None = Field(default=None, description="None where a row could not be read")


class RunPolicy(_Frozen):
    """What every run of this installation is given."""

    base_model: str = Field(default=DEFAULT_BASE_MODEL, description=BASE_MODEL_TEXT)
    limits: Limits = Limits()
    threads: int = Field(default=1, ge=1, le=256)
    checkpoint_steps: int = Field(default=40, ge=1)
    frozen_layers: int = Field(default=0, ge=0, description="lowest encoder layers that keep their weights")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="that is trained on")
    fp16: bool = Field(default=True, description="make the variant that CUDA serves")


class OnShutdown(StrEnum):
    """What becomes of the work under way when the service is asked to stop."""

    DETACH = "detach"
    CANCEL = "cancel"


class ExecutionPolicy(_Frozen):
    """How long an attempt may take, how often one is made, and what becomes of it when the service stops."""

    poll_seconds: float = Field(default=0.2, gt=0)
    stall_seconds: float = Field(default=3_600.0, gt=0, description="without any progress for so long, it hangs")
    run_seconds: float = Field(default=86_400.0, gt=0, description="the longest that one attempt may take")
    on_shutdown: OnShutdown = OnShutdown.DETACH
    attempts: int = Field(default=3, ge=1, description="failed attempts a run is given")
    retry_seconds: float = Field(
        default=2.0, ge=0, description="before the second attempt; twice that before the third"
    )


class TrainingInputs(RunPolicy):
    """What a run depends on wherever its files lie."""

    run: RunId
    model: ModelName
    dataset: DatasetName
    format: Literal["jsonl", "csv"] = "jsonl"
    content_hash: Sha256 | None = Field(default=None, description="of the file's bytes; another file is refused")
    columns: Columns = Columns()
    recipe: Recipe = Recipe()
    splitting: Splitting = Splitting()
    gates: Gates = Gates()


class ChampionRef(_Frozen):
    """The version that serves now, where its artifact lies, and what of it is served."""

    version: VersionNumber
    artifact: ArtifactRef
    precision: Precision


class TrainingSpec(TrainingInputs):
    """What an executor is given: addresses only, so that the work may be done on any machine."""

    tenant: Tenant
    data_uri: str
    feedback_uri: str | None = Field(default=None, description="jsonl of `text` and `label`: labelled traffic")
    champion: ChampionRef | None = None
    artifact_store: str = Field(description="the root that the artifact is put under")
    working_uri: str = Field(description="the run's own folder: attempts, checkpoints, progress and outcome")


class Handle(_Frozen):
    """Names one execution of a run's attempt, for any process that asks the executor about it; kept with the run."""

    executor: str = Field(description="the kind of executor that understands `reference`")
    tenant: Tenant
    run: RunId
    attempt: int = Field(ge=1)
    working_uri: str = Field(description="where this attempt works")
    reference: dict[str, str] = Field(description="what the executor finds the work by: a process, a job's name")

    @property
    def execution(self) -> str:
        """One name a run and attempt: submitting it again finds the first one."""
        return f"{self.run}.{self.attempt}"


class Progress(_Frozen):
    """One step forward."""

    at: datetime
    stage: Stage
    fraction: float = Field(ge=0, le=1, description="of the stage")
    message: str
    numbers: dict[str, float] = Field(default_factory=dict)
    content: DataContent | None = Field(default=None, description="told once, when the file was read")


INTERRUPTED: Final = "interrupted"
"""The code of an attempt that was ended by no fault of its own: it does not count as a failed one."""


class Failure(_Frozen):
    """Why an attempt ended without a model."""

    stage: Stage
    code: str
    reason: str
    field: str | None = Field(default=None, description="what to change: of the recipe, or a setting")
    hint: str | None = Field(default=None, description="what to do about it")
    row: int | None = None
    retryable: bool


class RunResult(_Frozen):
    """What a finished run has to tell."""

    run: RunId
    data_hash: Sha256
    content: DataContent | None = None
    base_model: str
    labels: list[Label]
    metrics: Metrics
    variants: list[VariantReport]
    comparison: Comparison | None
    artifact: ArtifactRef
    seconds: dict[Stage, float] = Field(description="of this process; a stage that was skipped took none")
