"""Every event, one class a topic. Frozen facts in the past tense, each with one owner.

Consumers ignore unknown fields. A breaking change is a new class with a new `schema_version`, and golden
files of both in `tests/contracts/`. `proto/events/` holds the JSON Schemas generated from here.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal

from pydantic import AwareDatetime, Field

from services.contracts.artifact import ArtifactRef, Device, Precision
from services.contracts.inference import RequestFailure
from services.contracts.names import (
    DEFAULT_TENANT,
    DatasetName,
    DeploymentName,
    ModelName,
    ReplicaId,
    RequestId,
    RolloutId,
    RunId,
    Sha256,
    TaskName,
    Tenant,
    VersionNumber,
)
from services.contracts.placement import Placement
from services.contracts.tasks.classification import Prediction
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.records import InferenceRecord
from services.contracts.training import Columns, Comparison, Fact, Metrics, Recipe, VariantReport


class Event(Fact):
    """A fact worth telling. `topic` is where it is told; `key` is the name that must stay in order."""

    topic: ClassVar[str]
    schema_version: ClassVar[int] = 1
    key_field: ClassVar[str]
    compacted: ClassVar[bool] = False
    free_key: ClassVar[bool] = False  # the record's key is whatever the asker chose, not the field
    owner: ClassVar[str]

    @property
    def key(self) -> str:
        return str(getattr(self, self.key_field))

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents type."""
        return f"millrace.{cls.topic}.v{cls.schema_version}"


# --- dataset.ready -----------------------------------------------------------------------------


class DatasetReady(Event):
    """A data set lies ready to be trained on. Published by the gateway or any outside producer."""

    topic: ClassVar[str] = "dataset.ready"
    key_field: ClassVar[str] = "dataset"
    owner: ClassVar[str] = "gateway"

    dataset: DatasetName
    uri: str = Field(min_length=1, max_length=2000, description="file:// or a store's scheme; allowed roots only")
    format: Literal["jsonl", "csv"] = "jsonl"
    columns: Columns = Columns()
    task: Literal["text-classification"] = "text-classification"
    model: ModelName
    recipe: Recipe = Recipe()
    deploy: bool = Field(default=True, description="roll the model out once its gate has passed")
    content_hash: Sha256 | None = Field(default=None, description="SHA-256 of the file; a run that finds another fails")


# --- model.trained, training.failed ------------------------------------------------------------


class ModelTrained(Event):
    """A run ended with an artifact worth judging. Published by the trainer alone, keyed by model."""

    topic: ClassVar[str] = "model.trained"
    key_field: ClassVar[str] = "model"
    owner: ClassVar[str] = "trainer"

    model: ModelName
    run: RunId
    dataset: DatasetName
    data_hash: Sha256 = Field(description="SHA-256 of the prepared rows")
    parent: VersionNumber | None = Field(default=None, description="the version whose drift asked for this run")
    code_version: str
    base_model: str
    recipe: Recipe
    artifact: ArtifactRef
    variants: list[VariantReport] = Field(min_length=1)
    metrics: Metrics
    comparison: Comparison | None = None
    deploy: bool = True


class TrainingFailed(Event):
    """A run ended without a model. Published by the trainer, keyed by model."""

    topic: ClassVar[str] = "training.failed"
    key_field: ClassVar[str] = "model"
    owner: ClassVar[str] = "trainer"

    model: ModelName
    run: RunId
    dataset: DatasetName
    stage: str
    code: str = Field(description="stable, for programs: one_class, missing_file, out_of_memory, ...")
    reason: str
    field: str | None = Field(default=None, description="what to change: of the recipe, or a setting of the trainer")
    hint: str | None = Field(default=None, description="what to do about it")
    row: int | None = Field(default=None, description="the first offending row of the data set, counted from 1")
    retryable: bool


# --- deployment.changed, replica.reported ------------------------------------------------------


class Role(StrEnum):
    PRIMARY = "primary"
    CANARY = "canary"
    DRAINING = "draining"
    """Gets no new traffic; stays loaded until its last request has ended."""


class Target(Fact):
    """One version that a deployment wants served."""

    model: ModelName | None = Field(default=None, description="whose version it is; unset: the deployment's model")
    version: VersionNumber
    artifact: ArtifactRef
    precision: Precision = Field(description="the variant that was judged, which a CPU serves")
    variants: list[Precision] = Field(default_factory=list, description="all that passed; without them, that one")
    role: Role
    weight: int = Field(ge=0, le=100, description="percent of the traffic")


class RolloutStep(Fact):
    """Where the rollout under way stands."""

    rollout: RolloutId
    model: ModelName | None = Field(default=None, description="whose version it is; unset: the deployment's model")
    version: VersionNumber
    state: Literal["loading", "canary", "paused"]
    step: int = Field(ge=0)
    steps: int = Field(ge=1)


class DeploymentChanged(Event):
    """What ought to be served from now on. Published by the registry; the latest generation counts."""

    topic: ClassVar[str] = "deployment.changed"
    key_field: ClassVar[str] = "deployment"
    compacted: ClassVar[bool] = True
    owner: ClassVar[str] = "registry"

    deployment: DeploymentName
    model: ModelName = Field(description="the model that serves; while nothing does, the one that is to")
    generation: int = Field(ge=1)
    targets: list[Target]
    placement: Placement = Field(default=Placement(), description="which replicas load it")
    deleted: bool = Field(default=False, description="there is no such deployment any more")
    mirror: float = Field(default=0.0, ge=0, le=1, description="share of requests that the other version answers too")
    rollout: RolloutStep | None = None
    reason: str


class ReplicaVersion(Fact):
    """How far a replica is with one version."""

    deployment: DeploymentName
    model: ModelName
    version: VersionNumber
    state: Literal["loading", "ready", "failed"]
    reason: str | None = None
    tenant: Tenant = DEFAULT_TENANT
    precision: Precision | None = Field(default=None, description="the variant that the replica took for its device")


class ReplicaReported(Event):
    """What a replica serves: on every change and as a heartbeat. Published by inference."""

    topic: ClassVar[str] = "replica.reported"
    key_field: ClassVar[str] = "replica"
    compacted: ClassVar[bool] = True
    owner: ClassVar[str] = "inference"

    replica: ReplicaId
    address: str = Field(description="host:port of its gRPC door")
    sequence: int = Field(ge=1, description="grows by one a report; an older one is stale")
    generations: dict[str, int] = Field(default_factory=dict, description="newest seen, by [tenant/]deployment")
    versions: list[ReplicaVersion] = Field(default_factory=list)
    device: Device | None = Field(default=None, description="what it computes on")
    capacity: int = Field(ge=1, description="requests it takes at once before refusing")
    leaving: bool = False


# --- inference.logged, feedback.received -------------------------------------------------------


class InferenceLogged(Event):
    """A batch of requests that versions answered or failed on. Published by inference, keyed by deployment."""

    topic: ClassVar[str] = "inference.logged"
    schema_version: ClassVar[int] = 2
    key_field: ClassVar[str] = "deployment"
    owner: ClassVar[str] = "inference"

    deployment: DeploymentName
    model: ModelName
    replica: ReplicaId
    task: TaskName
    records: list[InferenceRecord] = Field(min_length=1)


class FeedbackReceived(Feedback, Event):
    """Somebody judged an item of an answer. Published by the gateway, keyed by deployment; the latest said counts."""

    topic: ClassVar[str] = "feedback.received"
    key_field: ClassVar[str] = "deployment"
    owner: ClassVar[str] = "gateway"

    deployment: DeploymentName
    request: RequestId = Field(description="'request:1' names the second item of a request, as the field item does")
    item: int = Field(default=0, ge=0, le=99_999, description="of the request, counted from 0")
    given_at: AwareDatetime | None = Field(default=None, description="when the event was made, if unset")

    @property
    def judgement(self) -> Feedback:
        """What was said, without of what."""
        return Feedback(label=self.label, rating=self.rating, score=self.score, reference=self.reference)


# --- inference.requested, inference.completed ---------------------------------------------------


class InferenceRequested(Event):
    """Somebody waits for an answer. Published by any outside producer, keyed as the producer likes.

    `input` is the task's request as its REST path takes it. Without it the fields beside it are the request."""

    topic: ClassVar[str] = "inference.requested"
    key_field: ClassVar[str] = "deployment"
    free_key: ClassVar[bool] = True
    owner: ClassVar[str] = "gateway"

    deployment: DeploymentName
    task: TaskName = "classification"
    input: dict[str, Any] | None = Field(default=None, description="the task's own fields; what is wrong is answered")
    texts: list[str] = Field(default_factory=list, description="1 to 64; what is no text is answered with a failure")
    request: RequestId | None = Field(default=None, description="for feedback; made from the event's id if none")
    sticky_key: str = Field(default="", description="requests with one key go to one version while its weight lasts")
    version: VersionNumber | None = Field(default=None, description="which of the served versions answers")
    with_embeddings: bool = False
    whole_texts: bool = Field(default=False, description="refuse a text that is longer than the model reads")
    expires_at: AwareDatetime | None = Field(default=None, description="after it the answer is that it came too late")


class InferenceCompleted(Event):
    """A request of `inference.requested` was answered, or refused. Published by the gateway, keyed as the request was.

    A request that is delivered again is answered again, under the same event id."""

    topic: ClassVar[str] = "inference.completed"
    key_field: ClassVar[str] = "request"
    free_key: ClassVar[bool] = True
    owner: ClassVar[str] = "gateway"

    request: RequestId
    deployment: DeploymentName
    model: ModelName | None = None
    version: VersionNumber | None = None
    task: TaskName = "classification"
    predictions: list[Prediction] = Field(default_factory=list, description="one a text, in the texts' order")
    embeddings: list[str] = Field(
        default_factory=list, description="base64 of little-endian float32, one a text where they were asked for"
    )
    result: dict[str, Any] | None = Field(default=None, description="of a task that has no fields of its own here")
    tokens: int = Field(default=0, ge=0)
    failure: RequestFailure | None = None


# --- drift.detected, rollout.judged, slo.breached ----------------------------------------------


class Window(Fact):
    """Consecutive requests that were judged together."""

    number: int = Field(ge=1)
    rows: int = Field(ge=1)
    opened: datetime
    closed: datetime


class DriftDetected(Event):
    """The traffic no longer looks like what the version learned from. Published by the monitor, keyed by model."""

    topic: ClassVar[str] = "drift.detected"
    key_field: ClassVar[str] = "model"
    owner: ClassVar[str] = "monitor"

    model: ModelName
    deployment: DeploymentName
    version: VersionNumber
    variant: Precision | None = Field(default=None, description="whose traffic it is, compared with its own baseline")
    test: Literal["mmd-rbf"]
    statistic: float
    p_value: float
    alpha: float
    consecutive: int = Field(ge=1, description="windows in a row below alpha")
    window: Window
    baseline_rows: int
    requests_since_quiet: int = Field(ge=0, description="the variant's, since its last quiet window closed")


class Verdict(StrEnum):
    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll_back"


class Evidence(Fact):
    """One indicator's sequential test; `e_value` >= 1/alpha decides against the candidate (or for it)."""

    indicator: Literal["correctness", "errors", "latency"]
    pairs: int = Field(ge=0, description="observations the test has used")
    candidate: float = Field(description="the candidate's rate: right answers, errors or slow answers")
    champion: float
    candidate_variants: list[Precision] = Field(default_factory=list, description="that answered for the candidate")
    champion_variants: list[Precision] = Field(default_factory=list, description="that answered for the champion")
    e_value_worse: float
    e_value_safe: float
    alpha: float
    decision: Literal["worse", "safe", "undecided"]


class RolloutJudged(Event):
    """What the evidence says of a canary. Published by the monitor, keyed by deployment."""

    topic: ClassVar[str] = "rollout.judged"
    key_field: ClassVar[str] = "deployment"
    owner: ClassVar[str] = "monitor"

    deployment: DeploymentName
    rollout: RolloutId
    version: VersionNumber
    step: int = Field(ge=0)
    verdict: Verdict
    requests: int = Field(ge=0, description="the candidate's requests in this step")
    evidence: list[Evidence]
    reason: str


class SloBreached(Event):
    """An objective burns its error budget too fast. Published by the monitor, keyed by deployment."""

    topic: ClassVar[str] = "slo.breached"
    key_field: ClassVar[str] = "deployment"
    owner: ClassVar[str] = "monitor"

    deployment: DeploymentName
    version: VersionNumber
    indicator: Literal["errors", "latency"]
    objective: float = Field(description="the share of good requests that was promised")
    burn_rate: float = Field(description="1 uses the budget up exactly by the end of its period")
    window_seconds: float
    requests: int


class RegistryFact(Event):
    """One line of the registry's history. Published in order, kept for ever."""

    topic: ClassVar[str] = "registry.history"
    key_field: ClassVar[str] = "stream"
    owner: ClassVar[str] = "registry"

    sequence: int = Field(ge=1)
    stream: str
    kind: str
    payload: dict[str, Any]
    actor: str
    reason: str
    at: datetime
    previous_hash: str
    hash: str


EVENTS: Final[tuple[type[Event], ...]] = (
    *(DatasetReady, ModelTrained, TrainingFailed, DeploymentChanged, ReplicaReported, InferenceLogged),
    *(FeedbackReceived, InferenceRequested, InferenceCompleted, DriftDetected, RolloutJudged, SloBreached),
    RegistryFact,
)

BY_TOPIC: Final[dict[str, type[Event]]] = {event.topic: event for event in EVENTS}
