"""What was written to a topic once can be read for ever: golden files, decoded by today's classes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from referencing import Registry

from services.contracts.events import BY_TOPIC, EVENTS, Event, FeedbackReceived
from tests.contracts.examples import EXAMPLES, GOLDEN, KEYS, golden_files, golden_name

SCHEMAS = Path(__file__).parents[2] / "proto/events"

FREE = {
    "registry.history": ("payload",),
    "replica.reported": ("generations",),
    "inference.logged": ("records",),
    "inference.requested": ("input",),
    "inference.completed": ("result",),
}
"""Fields that hold data of any name: names of deployments, a fact's payload, what each task has of its own."""
NEVER_SET = {"dataset.ready": {"task"}, "feedback.received": {"rating", "score", "reference"}}
"""Fields that an example cannot set: of trained tasks there is one so far, of judgements an event has one."""
ONE_OF = {"feedback.received": {"label"}}
"""What a minimal file has of fields of which exactly one is needed."""

each_event = pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type_name())
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.type_name())


def with_strangers(value: Any) -> Any:
    """The same JSON with an unknown field in every object that is one of ours."""
    if isinstance(value, dict):
        return {**{name: with_strangers(part) for name, part in value.items()}, "x_added_later": {"any": ["thing"]}}
    if isinstance(value, list):
        return [with_strangers(part) for part in value]
    return value


@each_event
def test_every_event_has_a_full_and_a_minimal_golden_file(event: type[Event]) -> None:
    names = {path.name for path in golden_files(event)}
    assert {golden_name(event, "full"), golden_name(event, "minimal")} <= names


@each_event
def test_every_golden_file_still_decodes(event: type[Event]) -> None:
    for path in golden_files(event):
        event.model_validate_json(path.read_bytes())


@each_example
def test_the_full_golden_file_decodes_to_its_example_and_back(example: Event) -> None:
    golden = (GOLDEN / golden_name(type(example), "full")).read_text()
    assert type(example).model_validate_json(golden) == example
    written = example.model_dump(mode="json")
    assert {name: written[name] for name in json.loads(golden)} == json.loads(golden)


@each_example
def test_examples_leave_no_field_at_its_default(example: Event) -> None:
    free = set(example.model_dump()) - required(type(example)) - NEVER_SET.get(example.topic, set())
    assert free <= set(example.model_dump(exclude_defaults=True))


@pytest.mark.parametrize("more", [{"rating": 3}, {"score": 0.5}, {"reference": "files"}])
def test_feedback_with_two_judgements_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="exactly one of"):
        FeedbackReceived.model_validate({"deployment": "chapters", "request": "r", "label": "files", **more})


def required(event: type[Event]) -> set[str]:
    return {name for name, field in event.model_fields.items() if field.is_required()}


@each_example
def test_unknown_fields_are_ignored_at_every_depth(example: Event) -> None:
    golden = json.loads((GOLDEN / golden_name(type(example), "full")).read_text())
    strange = with_strangers(golden)
    for name in FREE.get(example.topic, ()):
        strange[name] = golden[name]
    assert type(example).model_validate(strange) == example


@each_event
def test_a_minimal_golden_file_without_one_of_its_fields_is_refused(event: type[Event]) -> None:
    minimal = json.loads((GOLDEN / golden_name(event, "minimal")).read_text())
    one_of = ONE_OF.get(event.topic, set())
    assert set(minimal) == required(event) | one_of
    for name in required(event):
        with pytest.raises(ValidationError) as refused:
            event.model_validate({key: value for key, value in minimal.items() if key != name})
        assert [error["loc"] for error in refused.value.errors()] == [(name,)]
    for name in one_of:
        with pytest.raises(ValidationError, match="exactly one of"):
            event.model_validate({key: value for key, value in minimal.items() if key != name})


@each_example
def test_the_key_is_the_name_that_must_stay_in_order(example: Event) -> None:
    assert example.key == KEYS[example.topic]


@each_event
def test_a_schema_is_published_and_its_golden_file_satisfies_it(event: type[Event]) -> None:
    schema = json.loads((SCHEMAS / f"{event.topic}.v{event.schema_version}.json").read_text())
    assert schema["$id"] == event.type_name()
    jsonschema.Draft202012Validator.check_schema(schema)
    # An empty registry: a schema that points outside itself would fail instead of fetching.
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    golden = json.loads((GOLDEN / golden_name(event, "full")).read_text())
    validator.validate(golden)
    validator.validate(with_strangers(golden) if event.topic not in FREE else golden)


@each_event
def test_a_schema_refuses_what_the_class_refuses(event: type[Event]) -> None:
    schema = json.loads((SCHEMAS / f"{event.topic}.v{event.schema_version}.json").read_text())
    golden = json.loads((GOLDEN / golden_name(event, "full")).read_text())
    golden[event.key_field] = None
    assert not jsonschema.Draft202012Validator(schema, registry=Registry()).is_valid(golden)
    with pytest.raises(ValidationError):
        event.model_validate(golden)


def test_no_golden_file_belongs_to_nothing() -> None:
    known = {path for event in EVENTS for path in golden_files(event)}
    assert set(GOLDEN.glob("*.v*.*.json")) - known == set()


def test_each_topic_has_one_event_and_one_owner() -> None:
    assert len(BY_TOPIC) == len(EVENTS) == len(EXAMPLES) == len(KEYS)
    assert {event.owner for event in EVENTS} == {"gateway", "trainer", "registry", "inference", "monitor"}


@each_example
def test_an_event_cannot_be_changed(example: Event) -> None:
    with pytest.raises(ValidationError):
        setattr(example, type(example).key_field, "other")
