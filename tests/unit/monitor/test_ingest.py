"""What a batch of requests and a label change."""

import base64
from datetime import UTC, datetime, timedelta

import numpy as np

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.tasks import TASKS
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.records import InferenceRecord
from services.monitor.domain.comparisons import CanaryComparison
from services.monitor.domain.deployments import DeploymentKey, EventContext, PrimaryVersion, Watch
from services.monitor.domain.ingest import ObservationBatch
from services.monitor.domain.observations import TimedFeedback
from services.monitor.domain.slo import Counts

NOW = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)
WATCH = Watch(
    key=DeploymentKey("default", "topics"),
    model="topics",
    generation=1,
    primary=PrimaryVersion(1, ArtifactRef(uri="memory://m/1", digest="1" * 64, signer="key", size_bytes=1)),
    context=EventContext("e-1", "s-1", {}),
    cpu_variants={1: Precision.INT8, 2: Precision.FP32},
)


def new_batch(comparison: CanaryComparison | None = None) -> ObservationBatch:
    return ObservationBatch(observations={}, comparison=comparison, watch=WATCH, slow_ms=100.0, now=NOW, tasks=TASKS)


def record(request: str, version: int = 1, **changes: object) -> InferenceRecord:
    row = base64.b64encode(np.ones(4, dtype="<f2").tobytes()).decode()
    items = [{"text": "Some text", "label": changes.pop("label", "a")}]
    values = {"at": NOW, "latency_ms": 20.0, "tokens": 5, "items": items, "embedding": row}
    return InferenceRecord.model_validate({"request": request, "version": version, **values, **changes})


def total(batch: ObservationBatch) -> Counts:
    """Over all versions and minutes."""
    return sum(batch.counts.values(), Counts())


def timed(label: str, *, seconds: float = 0) -> TimedFeedback:
    return TimedFeedback(Feedback(label=label), NOW + timedelta(seconds=seconds))


def test_a_request_counts_once_a_version() -> None:
    batch = new_batch()
    for answered in (record("r"), record("r"), record("r", 2, source="mirror")):
        batch.add_record(answered, "classification")
    assert len(batch.answers) == 2
    assert batch.repeated == 1
    assert total(batch).requests == 1


def test_slow_and_failed_answers_are_counted_apart() -> None:
    batch = new_batch()
    batch.add_record(record("slow", latency_ms=101), "classification")
    batch.add_record(record("failed", outcome="fault", latency_ms=900), "classification")
    counts = total(batch)
    assert (counts.requests, counts.errors, counts.slow) == (2, 1, 1)


def test_only_requests_of_clients_to_the_primary_version_reach_its_windows() -> None:
    batch = new_batch()
    batch.add_record(record("mine"), "classification")
    batch.add_record(record("mirror", source="mirror"), "classification")
    batch.add_record(record("canary", 2), "classification")
    assert [arrival.request for arrival in batch.arrivals] == ["mine"]


def test_a_record_that_does_not_name_its_variant_counts_for_what_a_cpu_serves_of_its_version() -> None:
    batch = new_batch()
    for one in (record("old"), record("new", variant="fp16"), record("other", 2), record("gone", 7)):
        batch.add_record(one, "classification")
    assert [(name, answer.variant) for name, answer in batch.answers] == [
        ("old", Precision.INT8),
        ("new", Precision.FP16),
        ("other", Precision.FP32),
        ("gone", None),
    ]
    assert [(arrival.request, arrival.variant) for arrival in batch.arrivals] == [
        ("old", Precision.INT8),
        ("new", Precision.FP16),
    ]


def test_an_unreadable_embedding_costs_the_sample_and_not_the_request() -> None:
    batch = new_batch()
    batch.add_record(record("r", embedding="***"), "classification")
    assert batch.unreadable == 1
    assert batch.arrivals[0].sample is None


def test_a_label_counts_for_every_version_that_answers_before_or_after_it() -> None:
    batch = new_batch()
    batch.add_record(record("r", 1, label="a"), "classification")
    assert batch.add_feedback("r", 0, timed("a"))
    assert not batch.add_feedback("r", 0, timed("b", seconds=-1))
    batch.add_record(record("r", 2, label="b", source="mirror"), "classification")
    assert batch.qualities == [("accuracy", 1.0), ("accuracy", 0.0)]
    counts = {version: value for (version, _), value in batch.counts.items()}
    assert (counts[1].labelled, counts[1].right) == (1, 1)
    assert (counts[2].labelled, counts[2].right) == (1, 0)


def test_the_tally_follows_the_comparison() -> None:
    batch = new_batch(CanaryComparison(candidate=2, champion=1, since=NOW - timedelta(minutes=1)))
    batch.add_feedback("r", 0, timed("a"))
    batch.add_record(record("r", 2, label="b", source="mirror"), "classification")
    batch.add_record(record("r", 1, label="a"), "classification")
    assert batch.tally.correctness.pairs.candidate_bad == 1
    assert batch.tally.errors.pairs.neither == 1


def test_clocks_that_run_ahead_or_have_no_zone_are_put_right() -> None:
    batch = new_batch()
    batch.add_record(record("ahead", at=NOW + timedelta(hours=3)), "classification")
    batch.add_record(record("naive", at=datetime(2026, 11, 1, 11, 59)), "classification")  # noqa: DTZ001 - a producer that forgot the zone
    assert [answer.at for _, answer in batch.answers] == [NOW, NOW - timedelta(seconds=90)]


def test_a_correction_takes_back_what_was_counted_whenever_it_arrives() -> None:
    for order in ((timed("a"), timed("b", seconds=5)), (timed("b", seconds=5), timed("a"))):
        batch = new_batch()
        batch.add_record(record("r", label="a"), "classification")
        for one in order:
            batch.add_feedback("r", 0, one)
        counts = total(batch)
        assert (counts.labelled, counts.right) == (1, 0)


def test_a_request_of_many_texts_is_one_observation() -> None:
    batch = new_batch()
    batch.add_record(record("r", items=[{"text": str(number), "label": "a"} for number in range(64)]), "classification")
    for item in range(3):
        batch.add_feedback("r", item, timed("a" if item else "b"))
    counts = total(batch)
    assert (counts.requests, counts.labelled, counts.right) == (1, 1, 1)
    assert len(batch.arrivals) == 1


def test_only_live_requests_and_their_mirrors_say_anything() -> None:
    batch = new_batch(CanaryComparison(candidate=2, champion=1, since=NOW - timedelta(minutes=1)))
    for source in ("batch", "kafka", "probe"):
        batch.add_record(record(source, source=source), "classification")
        batch.add_record(record(source, 2, source=source, outcome="fault"), "classification")
    assert (batch.answers, batch.counts, batch.arrivals) == ([], {}, [])
    assert batch.tally == new_batch().tally


def test_two_versions_answers_to_one_request_are_compared() -> None:
    batch = new_batch()
    batch.add_record(record("r", 1, label="a"), "classification")
    batch.add_record(record("r", 2, label="b", source="mirror"), "classification")
    batch.add_record(record("q", 1), "embedding")
    batch.add_record(record("q", 2, source="mirror"), "embedding")
    assert batch.likenesses[0] == 0.0
    assert round(batch.likenesses[1], 3) == 1.0


def test_a_task_that_is_not_known_here_is_counted_and_never_judged() -> None:
    batch = new_batch()
    batch.add_record(record("r"), "painting")
    batch.add_feedback("r", 0, timed("a"))
    counts = total(batch)
    assert (counts.requests, counts.labelled) == (1, 0)
