"""What a batch of requests and a label change."""

import base64
from datetime import UTC, datetime, timedelta

import numpy as np

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.tasks import TASKS
from services.contracts.tasks.feedback import Feedback
from services.contracts.tasks.records import InferenceRecord
from services.monitor.domain.comparisons import Contest
from services.monitor.domain.deployments import Place, Story, Watch, Watched
from services.monitor.domain.ingest import Intake
from services.monitor.domain.observations import TimedFeedback
from services.monitor.domain.slo import summed

NOW = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)
WATCH = Watch(
    place=Place("default", "topics"),
    model="topics",
    generation=1,
    watched=Watched(1, ArtifactRef(uri="memory://m/1", digest="1" * 64, signer="key", size_bytes=1)),
    story=Story("e-1", "s-1", {}),
    cpu_variants={1: Precision.INT8, 2: Precision.FP32},
)


def intake(contest: Contest | None = None) -> Intake:
    return Intake(known={}, contest=contest, watch=WATCH, slow_ms=100.0, now=NOW, tasks=TASKS)


def record(request: str, version: int = 1, **changes: object) -> InferenceRecord:
    row = base64.b64encode(np.ones(4, dtype="<f2").tobytes()).decode()
    items = [{"text": "Some text", "label": changes.pop("label", "a")}]
    values = {"at": NOW, "latency_ms": 20.0, "tokens": 5, "items": items, "embedding": row}
    return InferenceRecord.model_validate({"request": request, "version": version, **values, **changes})


def timed(label: str, *, seconds: float = 0) -> TimedFeedback:
    return TimedFeedback(Feedback(label=label), NOW + timedelta(seconds=seconds))


def test_a_request_counts_once_a_version() -> None:
    taken = intake()
    for answered in (record("r"), record("r"), record("r", 2, source="mirror")):
        taken.add(answered, "classification")
    assert len(taken.answers) == 2
    assert taken.repeated == 1
    assert summed(taken.counts.values()).requests == 1


def test_slow_and_failed_answers_are_told_apart() -> None:
    taken = intake()
    taken.add(record("slow", latency_ms=101), "classification")
    taken.add(record("failed", outcome="fault", latency_ms=900), "classification")
    counts = summed(taken.counts.values())
    assert (counts.requests, counts.errors, counts.slow) == (2, 1, 1)


def test_only_what_clients_asked_of_the_watched_version_reaches_its_windows() -> None:
    taken = intake()
    taken.add(record("mine"), "classification")
    taken.add(record("mirror", source="mirror"), "classification")
    taken.add(record("canary", 2), "classification")
    assert [arrival.request for arrival in taken.arrivals] == ["mine"]


def test_a_record_that_does_not_name_its_variant_counts_for_what_a_cpu_serves_of_its_version() -> None:
    taken = intake()
    for one in (record("old"), record("new", variant="fp16"), record("other", 2), record("gone", 7)):
        taken.add(one, "classification")
    assert [(name, answer.variant) for name, answer in taken.answers] == [
        ("old", Precision.INT8),
        ("new", Precision.FP16),
        ("other", Precision.FP32),
        ("gone", None),
    ]
    assert [(arrival.request, arrival.variant) for arrival in taken.arrivals] == [
        ("old", Precision.INT8),
        ("new", Precision.FP16),
    ]


def test_an_unreadable_embedding_costs_the_sample_and_not_the_request() -> None:
    taken = intake()
    taken.add(record("r", embedding="***"), "classification")
    assert taken.unreadable == 1
    assert taken.arrivals[0].sample is None


def test_a_label_counts_for_every_version_that_answered_before_or_after() -> None:
    taken = intake()
    taken.add(record("r", 1, label="a"), "classification")
    assert taken.judge("r", 0, timed("a"))
    assert not taken.judge("r", 0, timed("b", seconds=-1))
    taken.add(record("r", 2, label="b", source="mirror"), "classification")
    counts = {version: value for (version, _), value in taken.counts.items()}
    assert (counts[1].labelled, counts[1].right) == (1, 1)
    assert (counts[2].labelled, counts[2].right) == (1, 0)


def test_the_tally_follows_the_contest() -> None:
    taken = intake(Contest(candidate=2, champion=1, since=NOW - timedelta(minutes=1)))
    taken.judge("r", 0, timed("a"))
    taken.add(record("r", 2, label="b", source="mirror"), "classification")
    taken.add(record("r", 1, label="a"), "classification")
    assert taken.tally.correctness.pairs.candidate_bad == 1
    assert taken.tally.errors.pairs.neither == 1


def test_clocks_that_run_ahead_or_have_no_zone_are_put_right() -> None:
    taken = intake()
    taken.add(record("ahead", at=NOW + timedelta(hours=3)), "classification")
    taken.add(record("naive", at=datetime(2026, 11, 1, 11, 59)), "classification")  # noqa: DTZ001 - a producer that forgot the zone
    assert [answer.at for _, answer in taken.answers] == [NOW, NOW - timedelta(seconds=90)]


def test_a_correction_takes_back_what_was_counted_whenever_it_arrives() -> None:
    for order in ((timed("a"), timed("b", seconds=5)), (timed("b", seconds=5), timed("a"))):
        taken = intake()
        taken.add(record("r", label="a"), "classification")
        for one in order:
            taken.judge("r", 0, one)
        counts = summed(taken.counts.values())
        assert (counts.labelled, counts.right) == (1, 0)


def test_a_request_of_many_texts_is_one_observation() -> None:
    taken = intake()
    taken.add(record("r", items=[{"text": str(number), "label": "a"} for number in range(64)]), "classification")
    for item in range(3):
        taken.judge("r", item, timed("a" if item else "b"))
    counts = summed(taken.counts.values())
    assert (counts.requests, counts.labelled, counts.right) == (1, 1, 1)
    assert len(taken.arrivals) == 1


def test_only_live_requests_and_their_mirrors_say_anything() -> None:
    taken = intake(Contest(candidate=2, champion=1, since=NOW - timedelta(minutes=1)))
    for source in ("batch", "kafka", "probe"):
        taken.add(record(source, source=source), "classification")
        taken.add(record(source, 2, source=source, outcome="fault"), "classification")
    assert (taken.answers, taken.counts, taken.arrivals) == ([], {}, [])
    assert taken.tally == intake().tally


def test_two_versions_answers_to_one_request_are_compared() -> None:
    taken = intake()
    taken.add(record("r", 1, label="a"), "classification")
    taken.add(record("r", 2, label="b", source="mirror"), "classification")
    taken.add(record("q", 1), "embedding")
    taken.add(record("q", 2, source="mirror"), "embedding")
    assert taken.likenesses[0] == 0.0
    assert round(taken.likenesses[1], 3) == 1.0


def test_a_task_that_is_not_known_here_is_counted_and_never_judged() -> None:
    taken = intake()
    taken.add(record("r"), "painting")
    taken.judge("r", 0, timed("a"))
    counts = summed(taken.counts.values())
    assert (counts.requests, counts.labelled) == (1, 0)
