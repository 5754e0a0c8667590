"""proto/openapi.json: an OpenAPI 3.1 document by others' judgement, whose examples are what its schemas say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from openapi_spec_validator import OpenAPIV31SpecValidator

from scripts.rest_examples import BODIES, SAMPLES, sample_of
from scripts.rest_models import TIMESTAMP
from services.gateway.inbound.http.api import document
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.error_responses import OF_OTHERS
from services.gateway.inbound.openai.embeddings import read_request
from services.registry import errors as registry_errors
from services.trainer import errors as trainer_errors
from tests.fixtures.rest_routes import CONTROL_ROUTES, new_message, request_of, response_of

PROTO = Path(__file__).parents[2] / "proto"
DOCUMENT: dict[str, Any] = json.loads((PROTO / "openapi.json").read_text())
VERBS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield f"{verb.upper()} {path}", item[verb]


OPERATIONS = dict(operations())


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        match: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            match = match[name]
        part = match
    return part


def media(part: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Schema and value of each example of a body or an answer; made of the fields' examples where it has none whole."""
    for kind in resolved(part).get("content", {}).values():
        values = [response["value"] for response in kind.get("examples", {}).values()]
        values += [kind["example"]] if "example" in kind else []
        for value in values or examples_of(kind["schema"]):
            yield kind["schema"], value


def examples_of(schema: dict[str, Any]) -> list[Any]:
    """Those of the schema, or one of what its parts have; nothing where a part has none."""
    schema = resolved(schema)
    if "examples" in schema:
        return list(schema["examples"])
    if "const" in schema or "enum" in schema:
        return [schema["const"] if "const" in schema else schema["enum"][0]]
    if "anyOf" in schema:
        return next(filter(None, map(examples_of, schema["anyOf"])), [])
    if schema.get("type") == "array":
        return [examples_of(schema["items"])] if examples_of(schema["items"]) else []
    if schema.get("type") == "boolean":
        return [True]
    if schema.get("type") != "object":
        return []
    fields = {name: examples_of(part) for name, part in schema.get("properties", {}).items()}
    return [{name: examples[0] for name, examples in fields.items()}] if all(fields.values()) else []


def closed(schema: Any) -> Any:
    """The schema without a place for what it does not name, so that a misspelt field of an example is found."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    shut = {name: closed(part) for name, part in schema.items()}
    return {"additionalProperties": False, **shut} if isinstance(shut.get("properties"), dict) else shut


COMPONENTS = closed(DOCUMENT["components"])


def check(value: Any, schema: dict[str, Any], where: str) -> None:
    complete = {**closed(schema), "components": COMPONENTS}
    problems = [problem.message for problem in jsonschema.Draft202012Validator(complete).iter_errors(value)]
    assert not problems, (where, problems)


def test_the_official_schema_and_its_rules_find_nothing_to_say() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_a_broken_document_is_found_out() -> None:
    broken = json.loads(json.dumps(DOCUMENT))
    broken["paths"] = {path: broken["paths"][path] for path in ("/v1/models", "/v1/embeddings")}
    broken["paths"]["/v1/models"]["get"]["responses"]["200"].pop("description")
    broken["paths"]["/v1/embeddings"]["post"]["operationId"] = "openaiListModels"
    assert len(list(OpenAPIV31SpecValidator(broken).iter_errors())) >= 2
    with pytest.raises(AssertionError):
        check({"object": "model"}, {"$ref": "#/components/schemas/OpenAIModel"}, "too little")
    with pytest.raises(AssertionError):
        check({"request_idd": "a"}, {"$ref": "#/components/schemas/ClassifyResponse"}, "misspelt")


def test_every_operation_has_a_tag_that_is_described_and_says_what_it_does() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for name, operation in OPERATIONS.items():
        assert set(operation["tags"]) <= tags, name
        assert operation["summary"].endswith("."), name


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_examples_that_are_what_its_schemas_say(name: str) -> None:
    operation = OPERATIONS[name]
    for parameter in operation.get("parameters", []):
        examples = examples_of(parameter["schema"])
        assert examples, (name, parameter["name"])
        for example in examples:
            check(example, parameter["schema"], f"{name} {parameter['name']}")
    if "requestBody" in operation:
        sent = list(media(operation["requestBody"]))
        assert sent, name
        for schema, value in sent:
            check(value, schema, name)
    for status, answer in operation["responses"].items():
        response = list(media(answer))
        assert response or status == "304", (name, status)
        for schema, value in response:
            check(value, schema, f"{name} {status}")


def test_every_error_is_documented_with_its_status() -> None:
    for name, operation in OPERATIONS.items():
        response = set(operation["responses"])
        if operation.get("security") == []:
            continue
        assert {"401", "403"} <= response, name
        if "requestBody" in operation:
            assert {"408", "413", "415"} <= response, name


@pytest.mark.parametrize("route", CONTROL_ROUTES, ids=lambda route: route.method.name)
def test_an_example_is_a_request_that_the_route_takes(route: ControlRoute) -> None:
    if route.body_model is None:
        return
    schema = DOCUMENT["components"]["schemas"][route.body_model.__name__]
    examples = examples_of(schema)
    assert examples
    for example in examples:
        route.body_model.model_validate(example).to(type(new_message(request_of(route))))


def test_every_body_that_requires_a_field_has_an_example_of_its_own() -> None:
    lacking = [
        route.body_model.__name__
        for route in CONTROL_ROUTES
        if route.body_model is not None
        and any(field.is_required() for field in route.body_model.model_fields.values())
        and route.body_model.__name__ not in BODIES
    ]
    assert lacking == [], "give it one in scripts/rest_examples.py"


def test_the_examples_of_embeddings_are_taken_too() -> None:
    body = DOCUMENT["paths"]["/v1/embeddings"]["post"]["requestBody"]
    values = [value for _, value in media(body)]
    assert len(values) == 2
    for value in values:
        assert read_request(value).texts


def messages(message: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    if message.full_name not in seen and not message.full_name.startswith("google."):
        seen[message.full_name] = message
        for spec in message.fields:
            if spec.message_type is not None and not spec.message_type.GetOptions().map_entry:
                messages(spec.message_type, seen)
    return seen


def is_plain(spec: FieldDescriptor) -> bool:
    inner = spec.message_type
    return inner is None or inner.full_name == TIMESTAMP or bool(inner.GetOptions().map_entry)


def test_every_field_has_a_sample_and_every_sample_a_field() -> None:
    seen: dict[str, Descriptor] = {}
    for route in CONTROL_ROUTES:
        messages(request_of(route), seen)
        messages(response_of(route), seen)
    fields = [(message.name, spec) for message in seen.values() for spec in message.fields]
    lacking = [f"{name}.{spec.name}" for name, spec in fields if is_plain(spec) and sample_of(spec) is None]
    assert lacking == [], "give them samples in scripts/rest_examples.py"
    known = {spec.name for _, spec in fields} | {f"{name}.{spec.name}" for name, spec in fields}
    assert set(SAMPLES) <= known, set(SAMPLES) - known


def test_what_the_owners_refuse_is_reported_in_their_words() -> None:
    real = {
        "unknown_model": registry_errors.UnknownModel(model="news"),
        "precondition_failed": registry_errors.PreconditionFailed(deployment="topics", current=8, expected=7),
        "no_rollout": registry_errors.NoRollout(deployment="topics"),
        "unknown_run": trainer_errors.UnknownRun(run="run-1"),
        "run_has_ended": trainer_errors.RunHasEnded(run="run-1", status="succeeded"),
    }
    response = {example.code: example.message for examples in OF_OTHERS.values() for example in examples}
    assert response == {code: str(error) for code, error in real.items()}


def test_it_is_the_document_that_the_gateway_serves() -> None:
    assert document() == DOCUMENT
