"""What a batch of requests and a label change."""

import base64
from datetime import UTC, datetime, timedelta

import numpy as np

from services.contracts.events import InferenceRecord
from services.monitor.domain.intake import Intake
from services.monitor.domain.ledger import Contest
from services.monitor.domain.slo import summed

NOW = datetime(2026, 11, 1, 12, 0, 30, tzinfo=UTC)


def intake(contest: Contest | None = None) -> Intake:
    return Intake(known={}, contest=contest, watched=1, slow_ms=100.0, now=NOW)


def record(request: str, version: int = 1, **changes: object) -> InferenceRecord:
    row = base64.b64encode(np.ones(4, dtype="<f2").tobytes()).decode()
    values = {"at": NOW, "latency_ms": 20.0, "tokens": 5, "label": "a", "text": "Some text", "embedding": row}
    return InferenceRecord.model_validate({"request": request, "version": version, **values, **changes})


def test_a_request_counts_once_a_version() -> None:
    taken = intake()
    for answered in (record("r"), record("r"), record("r", 2, mirrored=True)):
        taken.add(answered)
    assert len(taken.answers) == 2
    assert taken.repeated == 1
    assert summed(taken.counts.values()).requests == 1


def test_slow_and_failed_answers_are_told_apart() -> None:
    taken = intake()
    taken.add(record("slow", latency_ms=101))
    taken.add(record("failed", outcome="error", label=None, latency_ms=900))
    counts = summed(taken.counts.values())
    assert (counts.requests, counts.errors, counts.slow) == (2, 1, 1)


def test_only_what_clients_asked_of_the_watched_version_reaches_its_windows() -> None:
    taken = intake()
    taken.add(record("mine"))
    taken.add(record("mirror", mirrored=True))
    taken.add(record("canary", 2))
    assert [arrival.request for arrival in taken.arrivals] == ["mine"]


def test_an_unreadable_embedding_costs_the_sample_and_not_the_request() -> None:
    taken = intake()
    taken.add(record("r", embedding="***"))
    assert taken.unreadable == 1
    assert taken.arrivals[0].sample is None


def test_a_label_counts_for_every_version_that_answered_before_or_after() -> None:
    taken = intake()
    taken.add(record("r", 1, label="a"))
    assert taken.label("r", "a")
    assert not taken.label("r", "b")
    taken.add(record("r", 2, label="b", mirrored=True))
    counts = {version: value for (version, _), value in taken.counts.items()}
    assert (counts[1].labelled, counts[1].right) == (1, 1)
    assert (counts[2].labelled, counts[2].right) == (1, 0)


def test_the_tally_follows_the_contest() -> None:
    taken = intake(Contest(candidate=2, champion=1, since=NOW - timedelta(minutes=1)))
    taken.label("r", "a")
    taken.add(record("r", 2, label="b", mirrored=True))
    taken.add(record("r", 1, label="a"))
    assert taken.tally.correctness.pairs.candidate_bad == 1
    assert taken.tally.errors.pairs.neither == 1


def test_clocks_that_run_ahead_or_have_no_zone_are_put_right() -> None:
    taken = intake()
    taken.add(record("ahead", at=NOW + timedelta(hours=3)))
    taken.add(record("naive", at=datetime(2026, 11, 1, 11, 59)))  # noqa: DTZ001 - a producer that forgot the zone
    assert [answer.at for _, answer in taken.answers] == [NOW, NOW - timedelta(seconds=90)]
