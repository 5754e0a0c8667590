"""Every event has plain words, and its version where it speaks of one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo.view import Filter, columns
from services.cli.consumer import ReceivedEvent
from services.cli.descriptions import in_words, version_of
from services.contracts.events import BY_TOPIC, EVENTS

GOLDEN = Path(__file__).parents[2] / "contracts" / "golden"


def seen(topic: str, body: dict[str, Any], **headers: str) -> ReceivedEvent:
    return ReceivedEvent(
        topic, "key", datetime(2026, 1, 1, tzinfo=UTC), "millrace/registry", headers, body, offset=0, partition=0
    )


def golden(topic: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((GOLDEN / f"{topic}.v{BY_TOPIC[topic].schema_version}.full.json").read_text())
    return body


@pytest.mark.parametrize("topic", [event.topic for event in EVENTS])
def test_each_event_of_the_contracts_is_described_in_words(topic: str) -> None:
    words = in_words(seen(topic, golden(topic)))
    assert "not understood" not in words
    assert words != "key"


def test_an_event_of_another_shape_is_shown_by_its_key() -> None:
    assert in_words(seen("drift.detected", {"surprise": 1})) == "key (not understood)"


def test_drift_names_the_variant_where_the_event_does() -> None:
    older = golden("drift.detected")
    assert in_words(seen("drift.detected", older)).startswith("drift away from v1: mmd-rbf")
    assert in_words(seen("drift.detected", older | {"variant": "fp16"})).startswith(
        "drift away from v1 (fp16): mmd-rbf"
    )


def test_a_dead_letter_is_shown_with_its_reason() -> None:
    assert in_words(seen("dataset.ready.dlq", {}, **{"dlq-reason": "it is not JSON"})) == "dead letter: it is not JSON"


def test_the_version_is_the_one_the_event_speaks_of() -> None:
    assert version_of(seen("drift.detected", {"version": 3})) == 3
    changed = {"rollout": None, "targets": [{"version": 1}, {"version": 2}]}
    assert version_of(seen("deployment.changed", changed)) == 2
    assert version_of(seen("registry.history", {"payload": {"version": 4}})) == 4
    assert version_of(seen("dataset.ready", {})) is None


def test_a_line_names_time_event_service_and_version() -> None:
    _, topic, service, version, _ = columns(seen("drift.detected", {"version": 3}))
    assert (topic, service, version) == ("drift.detected", "registry", "v3")


def test_a_heartbeat_without_a_change_changes_nothing() -> None:
    changes = Filter()
    report = {"replica": "a", "versions": [{"version": 1, "state": "loading"}]}
    ready = {"replica": "a", "versions": [{"version": 1, "state": "ready"}]}
    shown = [changes.is_change(seen("replica.reported", body)) for body in (report, report, ready)]
    assert shown == [True, False, True]
    assert not changes.is_change(seen("inference.logged", {}))


def test_the_trace_of_an_event_is_its_header() -> None:
    assert seen("drift.detected", {}, traceparent=f"00-{'a' * 32}-{'b' * 16}-01").trace_id == "a" * 32
    assert seen("drift.detected", {}, traceparent="nonsense").trace_id == ""
