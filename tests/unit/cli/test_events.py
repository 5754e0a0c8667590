"""Events before they are sent: examples, checks, composing; and filters for what comes."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.brokers import bootstrap_of
from services.cli.composition import body_of, message_of
from services.cli.consumer import ReceivedEvent
from services.cli.errors import CliError, Exit, NotRunning
from services.cli.examples import example
from services.cli.filters import event_filter, read_time
from services.cli.home import Home
from services.cli.input import edited
from services.cli.validation import check, events_in
from services.contracts.consumers import CONSUMERS
from services.contracts.events import BY_TOPIC, EVENTS, Event
from services.contracts.schemas import event_schema
from services.kit.core.clock import VirtualClock
from services.kit.messaging.envelope import decode

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
READY: dict[str, Any] = {"dataset": "docs", "uri": "file:///data/docs.jsonl", "model": "topics"}


def run(*arguments: str, given: str = "") -> Any:
    return CliRunner().invoke(app, list(arguments), input=given)


def seen(body: dict[str, Any], **headers: str) -> ReceivedEvent:
    return ReceivedEvent("deployment.changed", "topics", NOW, "millrace/registry", headers, body, offset=0, partition=0)


# --- schemas and examples ----------------------------------------------------------------------


OTHER_CHOICES = {"feedback.received": ("rating", "score", "reference")}
"""Fields of which an event has one, and an example the first."""


@pytest.mark.parametrize("full", [False, True], ids=["needed", "full"])
@pytest.mark.parametrize("event", EVENTS, ids=list(BY_TOPIC))
def test_the_example_of_every_topic_validates(event: type[Event], full: bool) -> None:
    made = example(event, full=full)
    event.model_validate_json(json.dumps(made))
    jsonschema.Draft202012Validator(event_schema(event)).validate(made)
    if full:
        made = {**dict.fromkeys(OTHER_CHOICES.get(event.topic, ())), **made}
        assert set(made) == set(event.model_fields)


@pytest.mark.parametrize("topic", list(BY_TOPIC))
def test_every_topic_can_be_explained_and_its_example_checked(topic: str, tmp_path: Path) -> None:
    assert json.loads(run("events", "schema", topic).stdout)["$id"] == BY_TOPIC[topic].type_name()
    file = tmp_path / "event.json"
    file.write_text(run("events", "schema", topic, "--example").stdout)
    assert run("events", "validate", str(file), "--topic", topic).exit_code == Exit.DONE


def test_every_topic_is_listed_with_owner_consumers_key_and_partitions() -> None:
    response = {one["topic"]: one for one in json.loads(run("events", "topics", "--json").stdout)["topics"]}
    assert list(response) == list(BY_TOPIC)
    assert response["training.failed"]["consumers"] == list(CONSUMERS["training.failed"])
    assert (response["dataset.ready"]["key"], response["dataset.ready"]["partitions"]) == ("dataset", 3)


def test_an_unknown_topic_is_wrong_usage_and_names_those_there_are() -> None:
    done = run("events", "schema", "nonsense")
    assert done.exit_code == Exit.USAGE
    assert "dataset.ready" in done.stderr


# --- checking ----------------------------------------------------------------------------------


def test_every_field_that_is_wrong_is_named_with_a_hint() -> None:
    body = {"dataset": "Docs", "model": "topics", "recipe": {"epochs": 0}, "format": "xml"}
    match = {problem.field: problem for problem in check(json.dumps(body).encode(), "dataset.ready").problems}
    assert set(match) == {"dataset", "uri", "recipe.epochs", "format"}
    assert "lower-case letters" in match["dataset"].hint
    assert match["uri"].message == "Field required"
    assert match["recipe.epochs"].hint == "a whole number, >= 1, <= 100"
    assert match["format"].hint == "one of jsonl, csv"


def test_what_only_the_schema_refuses_is_reported_as_such() -> None:
    [problem] = check(json.dumps({**READY, "recipe": {"epochs": "3"}}).encode(), "dataset.ready").problems
    assert (problem.field, problem.by) == ("recipe.epochs", "schema")


def test_a_field_that_nobody_knows_is_named_and_allowed() -> None:
    checked = check(json.dumps({**READY, "modle": "x", "recipe": {"epoch": 1}}).encode(), "dataset.ready")
    assert (checked.valid, checked.ignored) == (True, ("modle", "recipe.epoch"))


def test_a_structured_cloud_event_tells_its_topic_and_id() -> None:
    wrapped = {"specversion": "1.0", "id": "mine", "type": "millrace.dataset.ready.v1", "source": "s", "data": READY}
    checked = check(json.dumps(wrapped).encode(), "")
    assert (checked.valid, checked.topic, checked.id, checked.form) == (True, "dataset.ready", "mine", "structured")
    [problem] = check(json.dumps({**wrapped, "id": ""}).encode(), "").problems
    assert (problem.field, problem.by) == ("id", "envelope")
    [problem] = check(json.dumps({**wrapped, "type": "x"}).encode(), "").problems
    assert problem.field == "type"


@pytest.mark.parametrize("topic", ["dataset.ready", "feedback.received", "registry.history"])
def test_a_plain_event_of_one_shape_only_needs_no_topic(topic: str) -> None:
    checked = check(json.dumps(example(BY_TOPIC[topic], full=True)).encode(), "")
    assert checked.topic in ("", topic)
    assert check(b"{}", "").problems[0].hint.startswith("--topic with one of")


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"[1]", b"[" * 100_000, b"null"])
def test_what_is_no_event_is_refused_and_breaks_nothing(content: bytes) -> None:
    assert not check(content, "dataset.ready").valid


def test_one_event_a_line_is_checked_line_by_line() -> None:
    good, bad = json.dumps(READY), json.dumps({"dataset": "docs"})
    done = run("events", "validate", "-", "--topic", "dataset.ready", "--json", given=f"{good}\n\n{bad}\n")
    assert done.exit_code == Exit.FAILED
    response = json.loads(done.stdout)
    assert [(one["line"], one["valid"]) for one in response["events"]] == [(1, True), (3, False)]
    assert list(events_in(b'{\n"a": 1\n}')) == [(1, b'{\n"a": 1\n}')]


def test_a_file_that_is_not_there_cannot_be_checked() -> None:
    assert run("events", "validate", "nowhere.json").exit_code == Exit.USAGE


# --- composing ---------------------------------------------------------------------------------


def test_fields_are_json_where_they_read_as_json_and_go_inside_by_dots(tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(json.dumps(READY))
    _, body = body_of(file, ["recipe.epochs=3", "deploy=false", "model=others", "columns.text=a=b"])
    assert body == {**READY, "recipe": {"epochs": 3}, "deploy": False, "model": "others", "columns": {"text": "a=b"}}
    for wrong in ("dataset", "=x", "model.name=x"):
        with pytest.raises(CliError):
            body_of(file, [wrong])


def test_a_composed_event_has_an_id_a_key_and_a_trace_of_its_own() -> None:
    first, second = (message_of("dataset.ready", READY, {}) for _ in range(2))
    response = decode(first, VirtualClock().now())
    assert (first.key, response.source, response.event.key) == (b"docs", "millrace/cli", "docs")
    assert response.trace["traceparent"].startswith("00-")
    assert dict(first.headers)["ce_id"] != dict(second.headers)["ce_id"]


def test_what_is_logged_of_an_event_is_stored() -> None:
    response = {"id": "mine", "source": "/me", "tenant": "acme", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    headers = dict(message_of("dataset.ready", READY, response).headers)
    assert {headers[f"ce_{name}"] for name in ("id", "source", "tenant")} == {"mine", "/me", "acme"}
    assert headers["traceparent"] == response["traceparent"]


def test_what_is_no_event_is_not_composed_and_says_what_is_expected() -> None:
    with pytest.raises(CliError, match="uri: Field required") as caught:
        message_of("dataset.ready", {"dataset": "docs", "model": "m"}, {})
    assert "characters" in caught.value.hint
    with pytest.raises(CliError, match="not an event of the topic"):
        message_of("dataset.ready", READY, {"type": "millrace.model.trained.v1"})


def test_a_dry_run_prints_the_record_and_needs_no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    fields = [part for name, value in READY.items() for part in ("--field", f"{name}={value}")]
    done = run("events", "send", "dataset.ready", *fields, "--id", "mine", "--dry-run", "--json")
    response = json.loads(done.stdout)
    assert (response["topic"], response["key"], response["id"], response["event"]["model"]) == (
        "dataset.ready",
        "docs",
        "mine",
        "topics",
    )
    assert run("events", "send", "dataset.ready", *fields).exit_code == Exit.NOT_RUNNING


def test_what_only_a_service_says_is_sent_after_a_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    made = json.dumps(example(BY_TOPIC["slo.breached"]))
    done = run("events", "send", "slo.breached", "-", given=made)
    assert done.exit_code == Exit.FAILED
    assert "Only the monitor tells slo.breached" in done.stderr


def test_an_editor_leaves_another_text() -> None:
    assert edited("a\n", {"EDITOR": "sed -i s/a/b/"}) == "b\n"
    with pytest.raises(CliError, match="editor"):
        edited("a", {"VISUAL": "/no/such/editor"})


# --- which broker, and what is shown -----------------------------------------------------------


def test_a_broker_elsewhere_is_named_by_the_environment(tmp_path: Path) -> None:
    assert bootstrap_of(Home(tmp_path), {"KAFKA_BOOTSTRAP_SERVERS": "there:9092"}) == "there:9092"
    with pytest.raises(NotRunning):
        bootstrap_of(Home(tmp_path), {})


def test_events_are_chosen_by_key_field_and_header() -> None:
    event = seen({"targets": [{"version": 1}, {"version": 2}], "rollout": {"state": "canary"}, "ok": True}, ce_id="e-1")
    for match in ("targets.version=2", "rollout.state=canary", "ok=true", "ce_id=e-1"):
        assert event_filter("topics", [match])(event), match
    for match in ("targets.version=3", "rollout=canary", "nothing=1", "ok=1"):
        assert not event_filter("", [match])(event), match
    assert not event_filter("others", [])(event)
    with pytest.raises(CliError):
        event_filter("", ["no sign"])


def test_a_timestamp_is_a_while_ago_or_a_time() -> None:
    assert read_time("10m", NOW) == datetime(2026, 11, 3, 11, 50, tzinfo=UTC)
    assert read_time("2026-11-03T11:00:00+00:00", NOW) == datetime(2026, 11, 3, 11, tzinfo=UTC)
    for wrong in ("yesterday", "10", "-5m", "999999999d"):
        with pytest.raises(CliError):
            read_time(wrong, NOW)
