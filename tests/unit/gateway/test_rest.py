"""The routes of REST, their models and their document."""

import json
import random
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from scripts.rest_models import HIDDEN
from services.contracts.errors import BadField, Malformed
from services.contracts.rpc import common_pb2, gateway_pb2, registry_pb2
from services.gateway.inbound import converters
from services.gateway.inbound.http import parameters
from services.gateway.inbound.http.api import GatewayApi, document
from services.gateway.inbound.http.control_route import ControlRoute
from services.gateway.inbound.http.models import registry as models
from services.gateway.inbound.http.problems import first_problem
from services.gateway.inbound.http.wire_model import to_json
from services.gateway.inbound.sampling import Sampler
from tests.fixtures.rest_routes import CONTROL_ROUTES, OTHER_ROUTES, find, new_message, request_of, response_of, verb_of
from tests.unit.gateway.fakes import GatewayFleet
from tests.unit.gateway.rest import NativeAdapter, RecordingUpstreams, Reply, api_of, send

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("verb", "path", "method"),
    [
        ("GET", "/api/v1/models", "ListModels"),
        ("GET", "/api/v1/models/news/versions/@champion", "GetVersion"),
        ("POST", "/api/v1/deployments/news/rollouts", "StartRollout"),
        ("POST", "/api/v1/deployments/news/rollouts:pause", "PauseRollout"),
        ("POST", "/api/v1/deployments/news:rollback", "RollBack"),
        ("POST", "/api/v1/runs/run-1:cancel", "CancelRun"),
        ("GET", "/api/v1/runs/run-1/logs", "GetRunLogs"),
        ("POST", "/api/v1/datasets", "AnnounceDataset"),
        ("GET", "/api/v1/datasets", "ListDatasets"),
    ],
)
def test_a_path_finds_its_method(verb: str, path: str, method: str) -> None:
    assert find(verb, path).method.name == method


def test_unknown_paths_and_wrong_methods_differ() -> None:
    api = GatewayApi()
    assert api.methods_of("/api/v1/nothing") == []
    assert api.methods_of("/api/v1/datasets") == ["GET", "POST"]


def test_every_method_of_the_other_services_has_a_path() -> None:
    services = {route.method.containing_service.full_name: route.method.containing_service for route in CONTROL_ROUTES}
    routed = {route.method.full_name for route in (*CONTROL_ROUTES, *OTHER_ROUTES)}
    methods = [method for service in services.values() for method in service.methods]
    assert {method.name for method in methods if method.full_name not in routed} == {"Stream"}


def test_a_path_and_a_model_have_every_field_of_the_request_between_them() -> None:
    for route in CONTROL_ROUTES:
        request = request_of(route)
        names = {spec.name for spec in request.fields if spec.name != "page"}
        if "page" in request.fields_by_name:
            names |= {spec.name for spec in common_pb2.Page.DESCRIPTOR.fields}
        model = route.body_model or route.query_model
        in_path, in_model = set(re.findall(r"{(\w+)}", route.path)), set(model.model_fields) if model else set()
        assert not in_path & in_model, route.path
        assert in_path | in_model == names - set(HIDDEN.get(request.name, ())), route.path


@given(st.dictionaries(st.text(max_size=12), JSON_VALUES, max_size=4))
def test_no_body_whatsoever_breaks_the_parser(body: dict[str, object]) -> None:
    for route in CONTROL_ROUTES:
        if (model := route.body_model) is None:
            continue
        fields = dict(zip(model.model_fields, body.values(), strict=False))
        for sent in (body, fields):
            try:
                model.model_validate(sent).to(type(new_message(request_of(route))))
            except ValidationError as error:
                located = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
                assert first_problem(located).field, (route.path, sent)


def test_nested_messages_lists_and_defaults_survive_the_way_there_and_back() -> None:
    sent = {"version": "2", "policy": {"weights": [10, 50], "mirror": 0.5}}
    request = models.StartRolloutRequest.model_validate(sent).to(registry_pb2.StartRolloutRequest, deployment="news")
    assert (request.deployment, list(request.policy.weights), request.policy.mirror) == ("news", [10, 50], 0.5)
    assert not request.HasField("expected_generation")
    shown = models.Deployment.of(registry_pb2.Deployment(name="news", version=2)).model_dump(exclude_none=True)
    assert (shown["name"], shown["generation"], shown["targets"]) == ("news", 0, [])
    assert "rollout" not in shown


@pytest.mark.parametrize("route", CONTROL_ROUTES, ids=lambda route: route.method.name)
def test_an_answer_is_what_protobuf_itself_would_render(route: ControlRoute) -> None:
    message = new_message(response_of(route))
    assert route.response_model.of(message).model_dump(exclude_none=True) == to_json(message)


def test_query_parameters_reach_into_the_page() -> None:
    query = models.ListModelsQuery.model_validate({"page_size": "7", "page_token": "t"})
    request = query.to(registry_pb2.ListModelsRequest)
    assert (request.page.page_size, request.page.page_token) == (7, "t")


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "99999999999", "\u0661"])
async def test_a_number_in_the_query_is_a_plain_one(text: str) -> None:
    reply = await native("GET", f"/api/v1/history?after_sequence={quote(text)}")
    assert (reply.status, reply.body["error"]["field"]) == (422, "after_sequence")


async def test_a_body_may_repeat_its_path_and_not_contradict_it() -> None:
    upstreams = RecordingUpstreams()
    path = "/api/v1/deployments/news:stop"
    assert (await native("POST", path, {"deployment": "news"}, upstreams)).status == 200
    request = registry_pb2.MoveRolloutRequest(deployment="news")
    assert upstreams.calls == [("/millrace.v1.RegistryService/StopDeployment", request.SerializeToString())]
    refused = await native("POST", path, {"deployment": "other"}, upstreams)
    assert (refused.status, refused.body["error"]["field"]) == (422, "deployment")
    assert len(upstreams.calls) == 1


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/models?page_size=1&page_size=2", "page_size"),
        ("/api/v1/models?stream=x", "stream"),
        ("/api/v1/models?page_size=1&&", "query"),
        ("/api/v1/models?page_size=x", "page.page_size"),
        ("/api/v1/history?page_size=x", "page_size"),
    ],
)
async def test_what_is_wrong_with_a_query_is_named(path: str, field: str) -> None:
    reply = await native("GET", path)
    assert reply.status in (400, 422)
    assert reply.body["error"]["field"] == field


@pytest.mark.parametrize(
    ("sent", "field", "problem"),
    [
        ({"version": 1.5}, "version", "a whole number"),
        ({"version": 1, "reason": 5}, "reason", "a string"),
        ({"version": 1, "dry_run": "yes"}, "dry_run", "true or false"),
        ({"version": 1, "more": 1}, "more", "no such field"),
        ({"version": None}, "version", "required"),
        ({"version": 0}, "version", "required"),
        ({}, "version", "required"),
    ],
)
async def test_a_wrong_field_is_named_in_our_words(sent: dict[str, object], field: str, problem: str) -> None:
    reply = await native("PUT", "/api/v1/models/news/aliases/champion", sent)
    error = reply.body["error"]
    assert (reply.status, error["code"], error["field"]) == (422, "bad_field", field)
    assert problem in error["message"]


async def test_what_nobody_foresaw_is_500_without_its_insides(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenUpstreams(RecordingUpstreams):
        async def call(self, method: str, request: bytes, metadata: Any, *, tenant: str, seconds: float) -> bytes:
            raise RuntimeError("a secret of the inside")

    reply = await native("GET", "/api/v1/models/news", upstreams=BrokenUpstreams())
    assert (reply.status, reply.body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in str(reply.body)
    assert "a secret of the inside" in caplog.text


async def native(verb: str, path: str, body: object = None, upstreams: RecordingUpstreams | None = None) -> Reply:
    return await send(NativeAdapter(api_of(GatewayFleet().ports, upstreams or RecordingUpstreams())), verb, path, body)


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        (parameters.ModelName, "news", "../news"),
        (parameters.RunId, "run-01jd:2", "a b"),
        (parameters.VersionReference, "@champion", "@@x"),
        (parameters.VersionReference, "12", "-1"),
        (parameters.AliasName, "champion", "Champion"),
        (parameters.Offset, "77", "-1"),
        (parameters.Partition, "0", "x"),
    ],
)
def test_path_parameters_have_the_shape_of_what_they_name(parameter: Any, good: str, bad: str) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(parameter)
    assert adapter.validate_python(good) == good
    with pytest.raises(Malformed):
        adapter.validate_python(bad)


def test_every_change_takes_an_idempotency_key_and_every_reading_of_one_thing_gives_a_tag() -> None:
    made = document()
    changes_nothing = {"Classify", "Embed"}
    for route in CONTROL_ROUTES:
        verb, method = verb_of(route), route.method
        operation = made["paths"][route.path][verb.lower()]
        headers = {part["name"] for part in operation["parameters"] if part["in"] == "header"}
        changes = verb != "GET" and method.name not in changes_nothing
        assert ("idempotency-key" in headers) == changes, route.path
        reads_one = verb == "GET" and method.name.startswith("Get") and not method.server_streaming
        assert ("if-none-match" in headers) == ("304" in operation["responses"]) == reads_one, route.path
        assert ("if-match" in headers) == ("412" in operation["responses"])


def test_every_change_of_a_deployment_takes_a_condition_and_can_be_tried() -> None:
    moves = [route for route in CONTROL_ROUTES if response_of(route).name == "Deployment" and verb_of(route) != "GET"]
    assert len(moves) == 10
    for route in moves:
        assert route.body_model is not None
        fields = set(route.body_model.model_fields)
        assert "dry_run" in fields, route.path
        assert ("expected_generation" in fields) != (verb_of(route) == "POST" and route.path.endswith("/deployments"))


def test_every_listing_has_the_one_shape_of_pages() -> None:
    for route in CONTROL_ROUTES:
        if not route.method.name.startswith("List"):
            continue
        assert route.query_model is not None
        if "page_size" in route.query_model.model_fields:
            assert "page_token" in route.query_model.model_fields, route.path
            assert "next_page_token" in route.response_model.model_fields, route.path


async def test_a_time_in_the_query_is_one_of_rfc_3339() -> None:
    query = models.ListHistoryQuery.model_validate({"since": "2026-11-25T10:00:00+01:00"})
    assert query.to(registry_pb2.ListHistoryRequest).since.ToJsonString() == "2026-11-25T09:00:00Z"
    refused = await native("GET", "/api/v1/history?since=5")
    assert (refused.status, refused.body["error"]["field"]) == (422, "since")
    described = {part["name"]: part for part in document()["paths"]["/api/v1/history"]["get"]["parameters"]}
    schema = described["since"]["schema"]
    assert (schema["type"], schema["format"]) == ("string", "date-time")


def test_the_document_names_every_route_and_resolves_every_reference() -> None:
    made = document()
    for route in CONTROL_ROUTES:
        operation = made["paths"][route.path][verb_of(route).lower()]
        named = {part["name"] for part in operation["parameters"] if part["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", route.path))
    for kind, name in re.findall(r'"#/components/(\w+)/(\w+)"', json.dumps(made)):
        assert made["components"][kind][name]
    ids = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert document() == made


def test_the_document_hides_what_clients_cannot_send() -> None:
    made = document()
    path = made["paths"]["/api/v1/deployments/{deployment}/classify"]["post"]
    body = path["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ClassifyRequest"}
    schema = made["components"]["schemas"]["ClassifyRequest"]
    names = {"texts", "request_id", "sticky_key", "version", "with_embeddings", "whole_texts"}
    assert set(schema["properties"]) == names
    assert schema["required"] == ["texts"]


def test_a_recipe_takes_measured_defaults_and_names_what_it_does_not_know() -> None:
    request = gateway_pb2.AnnounceDatasetRequest(dataset="d", uri="file:///d", model="m", hold_back=True)
    event = converters.dataset_ready(request)
    assert (event.recipe.epochs, event.deploy, event.format, event.columns.text) == (2, False, "jsonl", "text")
    request.recipe_json = '{"epohcs": 1}'
    with pytest.raises(BadField) as refused:
        converters.dataset_ready(request)
    assert refused.value.field == "recipe_json.epohcs"


def test_sampling_follows_the_caller_and_otherwise_its_ratio() -> None:
    sampled = f"00-{'a' * 32}-{'b' * 16}-01"
    never, always = Sampler(0.0, random.Random(1)), Sampler(1.0, random.Random(1))
    assert never.decide(sampled).sampled
    assert never.decide(sampled).carrier == {"traceparent": sampled}
    assert always.decide(sampled[:-2] + "00").unsampled == sampled[:-2] + "00"
    assert always.decide(None).sampled
    for broken in (None, "", "x", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-01-x", f"ff{sampled[2:]}"):
        response = never.decide(broken)
        assert not response.sampled
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", response.unsampled)
        assert response.carrier == {}
