"""proto/openapi.json: an OpenAPI 3.1 document by others' judgement, whose examples are what its schemas say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.gateway.inbound.http.routes import ROUTES, check_parameter
from services.gateway.inbound.http.transcode import build_request, render
from services.gateway.inbound.openai.embeddings import read_request
from services.gateway.inbound.openapi.document import document
from services.gateway.inbound.openapi.refusals import OF_OTHERS
from services.gateway.inbound.openapi.samples import BODIES, SAMPLES, TIMESTAMP, sample, sample_of
from services.registry import errors as registry_errors
from services.trainer import errors as trainer_errors

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
        found: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def media(part: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Schema and value of each example of a body or an answer."""
    for kind in resolved(part).get("content", {}).values():
        values = [told["value"] for told in kind.get("examples", {}).values()]
        values += [kind["example"]] if "example" in kind else []
        for value in values:
            yield kind["schema"], value


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
    whole = {**closed(schema), "components": COMPONENTS}
    problems = [problem.message for problem in jsonschema.Draft202012Validator(whole).iter_errors(value)]
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


def test_every_operation_has_a_tag_that_is_told_and_says_what_it_does() -> None:
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for name, operation in OPERATIONS.items():
        assert set(operation["tags"]) <= tags, name
        assert operation["summary"].endswith("."), name


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_examples_that_are_what_its_schemas_say(name: str) -> None:
    operation = OPERATIONS[name]
    for parameter in operation.get("parameters", []):
        assert "example" in parameter, (name, parameter["name"])
        check(parameter["example"], parameter["schema"], f"{name} {parameter['name']}")
    if "requestBody" in operation:
        sent = list(media(operation["requestBody"]))
        assert sent, name
        for schema, value in sent:
            check(value, schema, name)
    for status, answer in operation["responses"].items():
        told = list(media(answer))
        assert told or status == "304", (name, status)
        for schema, value in told:
            check(value, schema, f"{name} {status}")


def test_every_refusal_is_told_with_its_status() -> None:
    for name, operation in OPERATIONS.items():
        told = set(operation["responses"])
        if operation.get("security") == []:
            continue
        assert {"401", "403"} <= told, name
        if "requestBody" in operation:
            assert {"408", "413", "415"} <= told, name


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.rpc.name)
def test_an_example_is_a_request_that_the_door_takes(route: Any) -> None:
    assert not route.has_body or route.uploads or route.rpc.name in BODIES, (
        "give it a body in services/gateway/inbound/openapi/samples.py"
    )
    path = {name: str(sample(route.request)[name]) for name in route.parameters}
    for name, value in path.items():
        check_parameter(name, value)
    build_request(route, path, BODIES.get(route.rpc.name, {}))


def test_the_examples_of_embeddings_are_taken_too() -> None:
    body = DOCUMENT["paths"]["/v1/embeddings"]["post"]["requestBody"]
    for _, value in media(body):
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
    for route in ROUTES:
        messages(route.request, seen)
        messages(route.answer, seen)
    fields = [(message.name, spec) for message in seen.values() for spec in message.fields]
    lacking = [f"{name}.{spec.name}" for name, spec in fields if is_plain(spec) and sample_of(spec) is None]
    assert lacking == [], "give them samples in services/gateway/inbound/openapi/samples.py"
    known = {spec.name for _, spec in fields} | {f"{name}.{spec.name}" for name, spec in fields}
    assert set(SAMPLES) <= known, set(SAMPLES) - known


def test_a_sample_is_what_protobuf_itself_would_render() -> None:
    for route in ROUTES:
        if route.has_body:
            continue
        told = build_request(route, {}, {})
        assert set(json.loads(render(told))) <= {spec.name for spec in route.request.fields}


def test_what_the_owners_refuse_is_told_in_their_words() -> None:
    real = {
        "unknown_model": registry_errors.UnknownModel(model="news"),
        "precondition_failed": registry_errors.PreconditionFailed(deployment="topics", current=8, expected=7),
        "no_rollout": registry_errors.NoRollout(deployment="topics"),
        "unknown_run": trainer_errors.UnknownRun(run="run-1"),
        "run_has_ended": trainer_errors.RunHasEnded(run="run-1", status="succeeded"),
    }
    told = {example["code"]: example["message"] for examples in OF_OTHERS.values() for example in examples}
    assert told == {code: str(refusal) for code, refusal in real.items()}


def test_it_is_the_document_that_the_gateway_serves() -> None:
    assert document() == DOCUMENT
