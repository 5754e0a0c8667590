"""The table of REST routes, its requests and its document."""

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import BadField, Malformed, MillraceError
from services.contracts.rpc import gateway_pb2, registry_pb2
from services.gateway.errors import MethodNotAllowed, UnknownRoute
from services.gateway.inbound import translate
from services.gateway.inbound.http.control import match
from services.gateway.inbound.http.routes import ROUTES, check_parameter
from services.gateway.inbound.http.transcode import build_request, query_fields, read_query, render
from services.gateway.inbound.openapi.document import document
from services.gateway.inbound.sampling import Sampler

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
    assert match(verb, path)[0].rpc.name == method


def test_unknown_paths_and_wrong_methods_are_told_apart() -> None:
    with pytest.raises(UnknownRoute):
        match("GET", "/api/v1/nothing")
    with pytest.raises(MethodNotAllowed) as refused:
        match("DELETE", "/api/v1/datasets")
    assert refused.value.details["allowed"] == "GET, POST"


def test_every_method_of_the_other_services_has_a_path() -> None:
    services = {route.service.full_name: route.service for route in ROUTES}
    missing = {
        method.name
        for service in services.values()
        for method in service.methods
        if not any(route.rpc is method or route.rpc.full_name == method.full_name for route in ROUTES)
    }
    assert missing == {"Stream"}


def test_every_path_parameter_and_required_field_is_a_field_of_the_request() -> None:
    for route in ROUTES:
        names = {spec.name for spec in route.request.fields}
        assert {*route.parameters, *route.required, *route.hidden} <= names, route.path


@given(st.dictionaries(st.text(max_size=12), JSON_VALUES, max_size=4))
def test_no_body_whatsoever_breaks_the_parser(body: dict[str, object]) -> None:
    unnamed = []
    for chosen in ROUTES:
        fields = {spec.name: value for spec, value in zip(chosen.request.fields, body.values(), strict=False)}
        for sent in (body, fields):
            try:
                build_request(chosen, dict.fromkeys(chosen.parameters, "a"), sent)
            except MillraceError as refusal:
                unnamed += [refusal] if refusal.field is None else []
    assert not unnamed


def test_nested_messages_lists_and_defaults_survive_the_way_there_and_back() -> None:
    route, path = match("POST", "/api/v1/deployments/news/rollouts")
    sent = {"version": "2", "policy": {"weights": [10, 50], "mirror": 0.5}}
    request = build_request(route, path, sent)
    assert isinstance(request, registry_pb2.StartRolloutRequest)
    assert (request.deployment, list(request.policy.weights), request.policy.mirror) == ("news", [10, 50], 0.5)
    told = json.loads(render(registry_pb2.Deployment(name="news", version=2)))
    assert (told["name"], told["generation"], told["targets"]) == ("news", 0, [])
    assert "rollout" not in told


def test_query_parameters_reach_into_the_page() -> None:
    route, path = match("GET", "/api/v1/models")
    sent = read_query(route, [("page_size", "7"), ("page_token", "t")])
    request = build_request(route, path, sent)
    assert isinstance(request, registry_pb2.ListModelsRequest)
    assert (request.page.page_size, request.page.page_token) == (7, "t")


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "99999999999", "١"])
def test_a_number_in_the_query_is_a_plain_one(text: str) -> None:
    route, path = match("GET", "/api/v1/history")
    with pytest.raises(BadField):
        build_request(route, path, read_query(route, [("after_sequence", text)]))


def test_a_body_may_repeat_its_path_and_not_contradict_it() -> None:
    route, path = match("POST", "/api/v1/deployments/news/feedback")
    body = {"request_id": "r", "label": "l", "deployment": "news"}
    assert isinstance(build_request(route, path, body), gateway_pb2.SendFeedbackRequest)
    with pytest.raises(BadField):
        build_request(route, path, {**body, "deployment": "other"})


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("model", "news", "../news"),
        ("run", "run-01jd:2", "a b"),
        ("version", "@champion", "@@x"),
        ("version", "12", "-1"),
        ("alias", "champion", "Champion"),
    ],
)
def test_path_parameters_have_the_shape_of_what_they_name(name: str, good: str, bad: str) -> None:
    check_parameter(name, good)
    with pytest.raises(Malformed):
        check_parameter(name, bad)


def test_every_change_takes_an_idempotency_key_and_every_reading_of_one_thing_gives_a_tag() -> None:
    made = document()
    changes_nothing = {"Classify", "Embed"}
    for route in ROUTES:
        operation = made["paths"][route.path][route.verb.lower()]
        headers = {part["name"] for part in operation["parameters"] if part["in"] == "header"}
        changes = route.verb != "GET" and route.rpc.name not in changes_nothing
        assert ("idempotency-key" in headers) == changes, route.path
        reads_one = route.verb == "GET" and route.rpc.name.startswith("Get") and not route.rpc.server_streaming
        assert ("if-none-match" in headers) == ("304" in operation["responses"]) == reads_one, route.path
        assert ("if-match" in headers) == ("412" in operation["responses"])


def test_every_change_of_a_deployment_takes_a_condition_and_can_be_tried() -> None:
    moves = [route for route in ROUTES if route.answer.name == "Deployment" and route.verb != "GET"]
    assert len(moves) == 10
    for route in moves:
        assert "dry_run" in route.request.fields_by_name, route.path
        creates = route.rpc.name == "CreateDeployment"
        assert ("expected_generation" in route.request.fields_by_name) != creates, route.path


def test_every_listing_has_the_one_shape_of_pages() -> None:
    for route in ROUTES:
        if not route.rpc.name.startswith("List"):
            continue
        asked = {spec.name for _, spec in query_fields(route)}
        if "page_size" in asked:
            assert "page_token" in asked, route.path
            assert "next_page_token" in route.answer.fields_by_name, route.path


def test_a_time_in_the_query_is_one_of_rfc_3339() -> None:
    route, path = match("GET", "/api/v1/history")
    request = build_request(route, path, read_query(route, [("since", "2026-11-25T10:00:00+01:00")]))
    assert isinstance(request, registry_pb2.ListHistoryRequest)
    assert request.since.ToJsonString() == "2026-11-25T09:00:00Z"
    with pytest.raises(BadField) as refused:
        build_request(route, path, {"since": 5})
    assert refused.value.field == "since"
    described = {part["name"]: part for part in document()["paths"]["/api/v1/history"]["get"]["parameters"]}
    assert described["since"]["schema"] == {"type": "string", "format": "date-time"}


def test_the_document_names_every_route_and_resolves_every_reference() -> None:
    made = document()
    for route in ROUTES:
        operation = made["paths"][route.path][route.verb.lower()]
        named = {part["name"] for part in operation["parameters"] if part["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", route.path))
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(made)):
        assert made["components"]["schemas"][name]
    ids = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert document() == made


def test_the_document_hides_what_clients_cannot_send() -> None:
    path = document()["paths"]["/api/v1/deployments/{deployment}/classify"]["post"]
    body = path["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"texts", "request_id", "sticky_key", "version", "with_embeddings", "whole_texts"}
    assert body["required"] == ["texts"]


def test_a_recipe_takes_measured_defaults_and_names_what_it_does_not_know() -> None:
    request = gateway_pb2.AnnounceDatasetRequest(dataset="d", uri="file:///d", model="m", hold_back=True)
    event = translate.dataset_ready(request)
    assert (event.recipe.epochs, event.deploy, event.format, event.columns.text) == (2, False, "jsonl", "text")
    request.recipe_json = '{"epohcs": 1}'
    with pytest.raises(BadField) as refused:
        translate.dataset_ready(request)
    assert refused.value.field == "recipe_json.epohcs"


def test_sampling_follows_the_caller_and_otherwise_its_ratio() -> None:
    sampled = f"00-{'a' * 32}-{'b' * 16}-01"
    never, always = Sampler(0.0, random.Random(1)), Sampler(1.0, random.Random(1))
    assert never.decide(sampled).sampled
    assert never.decide(sampled).carrier == {"traceparent": sampled}
    assert always.decide(sampled[:-2] + "00").unsampled == sampled[:-2] + "00"
    assert always.decide(None).sampled
    for broken in (None, "", "x", f"00-{'0' * 32}-{'b' * 16}-01", f"00-{'a' * 32}-{'b' * 16}-01-x", f"ff{sampled[2:]}"):
        told = never.decide(broken)
        assert not told.sampled
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", told.unsampled)
        assert told.carrier == {}
