"""One full example of every event: each field set to something that is not its default.

The golden files were written from these. They are never edited: an additive change adds a field here and a new
golden file beside the old ones, a breaking change adds a class, an example and files of its own version.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from services.contracts.artifact import ArtifactRef, Device, Precision
from services.contracts.events import (
    DatasetReady,
    DeploymentChanged,
    DriftDetected,
    Event,
    Evidence,
    FeedbackReceived,
    InferenceCompleted,
    InferenceLogged,
    InferenceRequested,
    ModelTrained,
    RegistryFact,
    ReplicaReported,
    ReplicaVersion,
    Role,
    RolloutJudged,
    RolloutStep,
    SloBreached,
    Target,
    TrainingFailed,
    Verdict,
    Window,
)
from services.contracts.inference import RequestFailure
from services.contracts.placement import Placement
from services.contracts.tasks.classification import LabelScore, Prediction
from services.contracts.tasks.records import InferenceRecord
from services.contracts.training import (
    Columns,
    Comparison,
    Interval,
    Metrics,
    PairedCounts,
    Recipe,
    SliceScore,
    VariantReport,
)

GOLDEN: Final = Path(__file__).parent / "golden"

NOON: Final = datetime(2026, 11, 3, 12, 0, 0, 250_000, tzinfo=UTC)
ARTIFACT: Final = ArtifactRef(
    uri="file:///var/lib/millrace/artifacts/chapters/run-01", digest="a1" * 32, signer="key-1", size_bytes=118_812_345
)
RECIPE: Final = Recipe(
    epochs=3,
    batch_size=32,
    learning_rate=2e-4,
    head_learning_rate=2e-3,
    max_length=96,
    seed=7,
    test_rows=400,
    reference_rows=300,
    train_rows=1000,
)

EXAMPLES: Final[tuple[Event, ...]] = (
    DatasetReady(
        dataset="docstrings",
        uri="file:///srv/data/docstrings.csv",
        format="csv",
        columns=Columns(text="body", label="chapter", split="part", group="module"),
        model="chapters",
        recipe=RECIPE,
        deploy=False,
        content_hash="e5" * 32,
    ),
    ModelTrained(
        model="chapters",
        run="run-01",
        dataset="docstrings",
        data_hash="b2" * 32,
        parent=1,
        code_version="0.1.0",
        base_model="all-MiniLM-L6-v2",
        recipe=RECIPE,
        artifact=ARTIFACT,
        variants=[
            VariantReport(
                precision=Precision.INT8,
                size_bytes=23_068_672,
                macro_f1=0.819,
                agreement=0.988,
                max_difference=0.31,
                speedup=2.75,
                passed=False,
                reason="macro F1 fell by more than 0.01",
            )
        ],
        metrics=Metrics(
            slices=[
                SliceScore(
                    name="all", rows=500, accuracy=0.83, macro_f1=0.82, macro_f1_ci95=Interval(low=0.785, high=0.855)
                )
            ],
            tfidf_macro_f1=0.772,
            train_rows=1000,
            test_rows=500,
        ),
        comparison=Comparison(
            champion=1, slices=[PairedCounts(name="all", both=380, candidate_only=40, champion_only=25, neither=55)]
        ),
        deploy=False,
    ),
    TrainingFailed(
        model="chapters",
        run="run-02",
        dataset="docstrings",
        stage="prepare",
        code="one_class",
        reason="every row carries the label 'files'",
        field="uri",
        hint="give rows of at least two labels",
        row=17,
        retryable=False,
    ),
    DeploymentChanged(
        deployment="chapters",
        model="chapters",
        generation=4,
        targets=[
            Target(
                model="chapters",
                version=2,
                artifact=ARTIFACT,
                precision=Precision.INT8,
                variants=[Precision.FP32, Precision.FP16, Precision.INT8],
                role=Role.CANARY,
                weight=10,
            )
        ],
        placement=Placement(replicas=3, device=Device.CUDA, quorum=2),
        deleted=True,
        mirror=0.5,
        rollout=RolloutStep(rollout="rollout-01", model="chapters", version=2, state="canary", step=0, steps=2),
        reason="canary step 1 of 2",
    ),
    ReplicaReported(
        replica="inference-1",
        address="127.0.0.1:50051",
        sequence=9,
        generations={"acme/chapters": 4},
        versions=[
            ReplicaVersion(
                tenant="acme",
                deployment="chapters",
                model="chapters",
                version=2,
                state="failed",
                reason="its hash does not fit",
                precision=Precision.FP16,
            )
        ],
        device=Device.CUDA,
        capacity=256,
        leaving=True,
    ),
    InferenceLogged(
        deployment="chapters",
        model="chapters",
        replica="inference-1",
        task="classification",
        records=[
            InferenceRecord(
                request="req-01",
                version=2,
                variant=Precision.FP16,
                source="mirror",
                at=NOON,
                latency_ms=3.5,
                tokens=24,
                outcome="fault",
                items=[{"text": "Return a new path with the suffix changed.", "label": "files", "score": 0.91}],
                embedding="ADwAPA==",
            )
        ],
    ),
    FeedbackReceived(deployment="chapters", request="req-01", label="files", item=1, given_at=NOON),
    InferenceRequested(
        deployment="chapters",
        task="embedding",
        input={"texts": ["Return a new path with the suffix changed."]},
        texts=["Return a new path with the suffix changed."],
        request="req-01",
        sticky_key="customer-7",
        version=2,
        with_embeddings=True,
        whole_texts=True,
        expires_at=NOON + timedelta(minutes=5),
    ),
    InferenceCompleted(
        request="req-01",
        deployment="chapters",
        model="chapters",
        version=2,
        task="embedding",
        predictions=[Prediction(label="files", score=0.91, scores=(LabelScore(label="files", score=0.91),))],
        embeddings=["AAAAAJqZGT/NzEw/"],
        result={"tokens": [7]},
        tokens=12,
        failure=RequestFailure(
            code="deployment_not_ready",
            message="No replica is ready to serve 'chapters'.",
            field="deployment",
            hint="retry after the time given",
            retryable=True,
        ),
    ),
    DriftDetected(
        model="chapters",
        deployment="chapters",
        version=1,
        variant=Precision.FP16,
        test="mmd-rbf",
        statistic=0.041,
        p_value=0.005,
        alpha=0.01,
        consecutive=2,
        window=Window(number=6, rows=200, opened=NOON, closed=NOON + timedelta(seconds=20)),
        baseline_rows=500,
        requests_since_quiet=400,
    ),
    RolloutJudged(
        deployment="chapters",
        rollout="rollout-01",
        version=3,
        step=1,
        verdict=Verdict.ROLL_BACK,
        requests=120,
        evidence=[
            Evidence(
                indicator="correctness",
                pairs=76,
                candidate=0.62,
                champion=0.84,
                candidate_variants=[Precision.FP16, Precision.INT8],
                champion_variants=[Precision.INT8],
                e_value_worse=131.5,
                e_value_safe=0.25,
                alpha=0.01,
                decision="worse",
            )
        ],
        reason="correctness is shown worse than the champion's",
    ),
    SloBreached(
        deployment="chapters",
        version=2,
        indicator="latency",
        objective=0.99,
        burn_rate=14.5,
        window_seconds=300.0,
        requests=1200,
    ),
    RegistryFact(
        sequence=12,
        stream="model/chapters",
        kind="alias_moved",
        payload={"alias": "champion", "version": 2},
        actor="rollout",
        reason="promoted on evidence",
        at=NOON,
        previous_hash="c3" * 32,
        hash="d4" * 32,
    ),
)

KEYS: Final = {
    "dataset.ready": "docstrings",
    "model.trained": "chapters",
    "training.failed": "chapters",
    "deployment.changed": "chapters",
    "replica.reported": "inference-1",
    "inference.logged": "chapters",
    "feedback.received": "chapters",
    "inference.requested": "chapters",
    "inference.completed": "req-01",
    "drift.detected": "chapters",
    "rollout.judged": "chapters",
    "slo.breached": "chapters",
    "registry.history": "model/chapters",
}
"""The Kafka key of each example: a change here reorders what others rely on."""


def golden_name(event: type[Event], kind: str) -> str:
    """The newest of a kind: the field that was added first after `full` stands in `full-2`."""
    first = f"{event.topic}.v{event.schema_version}.{kind}"
    match = [path.name for path in golden_files(event) if path.name.startswith((f"{first}.", f"{first}-"))]
    return max(match, key=lambda name: (len(name), name), default=f"{first}.json")


def golden_files(event: type[Event]) -> Iterable[Path]:
    """Every golden file of this class, old ones included."""
    return sorted(GOLDEN.glob(f"{event.topic}.v{event.schema_version}.*.json"))
