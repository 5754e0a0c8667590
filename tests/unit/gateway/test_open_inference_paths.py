"""Paths and roles of the Open Inference Protocol, what a load may say, and how an answer is packed."""

from typing import Any

import pytest

from services.contracts.access import METHOD_ROLES, KeyRole
from services.contracts.errors import MillraceError
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.errors import ExtensionNotOffered
from services.gateway.inbound.http.api import GatewayApi, document
from services.gateway.inbound.oip.paths import INFER, unoffered
from services.gateway.inbound.oip.repository import read_reference
from services.gateway.inbound.oip.rest import chosen_encoding
from tests.fixtures.rest_routes import OPEN_INFERENCE_ROUTES, is_keyless, role_of, verb_of


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/v2/models/news/infer", {"model": "news", "version": None}),
        ("/v2/models/news/versions/2/infer", {"model": "news", "version": "2"}),
    ],
)
def test_an_inference_is_known_by_its_path(path: str, parts: dict[str, str | None]) -> None:
    hit = INFER.fullmatch(path)
    assert hit is not None
    assert hit.groupdict() == parts


@pytest.mark.parametrize("path", ["/v2/models/infer", "/v2/models/a/b/infer", "/v2/models/a/infer/", "/v2x"])
def test_what_only_looks_like_an_inference_is_none(path: str) -> None:
    assert INFER.fullmatch(path) is None


def test_an_extension_that_is_not_offered_differs_from_no_path() -> None:
    api = GatewayApi()
    for path in ("/v2/", "/v2/models", "/v2/models/a/b/c", "/v2x"):
        assert api.methods_of(path) == []
        assert unoffered(path) is None
    assert api.methods_of("/v2/models/news/infer") == ["POST"]
    assert api.methods_of("/v2") == api.methods_of("/v2/health/live") == ["GET"]
    for path in ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/a/register", "/v2/logging"):
        assert isinstance(unoffered(path), ExtensionNotOffered)
    assert isinstance(unoffered("/v2/models/news/trace/setting"), ExtensionNotOffered)


def test_every_path_is_described_and_stands_for_a_method_of_the_service() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    assert {route.method.name for route in OPEN_INFERENCE_ROUTES} == methods - {"ModelStreamInfer"}
    described = {path: item for path, item in document()["paths"].items() if path.startswith("/v2")}
    assert {(verb_of(route).lower(), route.path) for route in OPEN_INFERENCE_ROUTES} == {
        (verb, path) for path, item in described.items() for verb in item
    }
    ids = [operation["operationId"] for item in described.values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_roles_are_those_of_what_the_methods_do() -> None:
    roles = {route.method.name: role_of(route) for route in OPEN_INFERENCE_ROUTES if not is_keyless(route)}
    assert roles.pop("ModelInfer") is METHOD_ROLES["/inference.GRPCInferenceService/ModelStreamInfer"] is KeyRole.CLIENT
    assert roles.pop("RepositoryModelLoad") is roles.pop("RepositoryModelUnload") is KeyRole.OPERATOR
    assert set(roles.values()) == {KeyRole.VIEWER}


@pytest.mark.parametrize(
    ("sent", "reference"),
    [
        ({}, ""),
        ({"version": "2"}, "2"),
        ({"version": 2}, "2"),
        ({"version": "@challenger"}, "@challenger"),
        ({"config": '{"version_policy": {"specific": {"versions": [4]}}}'}, "4"),
        ({"config": '{"name": "news", "version_policy": {"specific": {"versions": [4]}}}'}, "4"),
    ],
)
def test_the_version_to_load_is_a_number_or_an_alias(sent: dict[str, Any], reference: str) -> None:
    assert read_reference(sent) == reference


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"version": 0}, "parameters.version"),
        ({"version": True}, "parameters.version"),
        ({"version": 1.5}, "parameters.version"),
        ({"version": "latest"}, "parameters.version"),
        ({"version": "٣"}, "parameters.version"),
        ({"version": "9" * 30}, "parameters.version"),
        ({"version": "@../x"}, "parameters.version"),
        ({"version": []}, "parameters.version"),
        ({"version": "2", "config": "{}"}, "parameters.config"),
        ({"config": "{"}, "parameters.config"),
        ({"config": {}}, "parameters.config"),
        ({"config": "[" * 100_000}, "parameters.config"),
        ({"config": '{"max_batch_size": 1}'}, "parameters.config"),
        ({"config": '{"version_policy": {"specific": {"versions": [1, 2]}}}'}, "parameters.config"),
        ({"config": '{"version_policy": {"specific": {"versions": [true]}}}'}, "parameters.config"),
        ({"config": '{"version_policy": {"specific": {"versions": [0]}}}'}, "parameters.config"),
        ({"file:1/model.onnx": b"x"}, "parameters.file:1/model.onnx"),
        ({"unheard_of": 1}, "parameters.unheard_of"),
    ],
)
def test_what_else_may_be_sent_with_a_load_is_nothing(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(MillraceError) as refused:
        read_reference(sent)
    assert refused.value.body().field == field


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""),
        ("identity", ""),
        ("br", ""),
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("GZIP;q=0", ""),
        ("gzip;q=x, deflate", "deflate"),
        ("gzip;q=nan", ""),
    ],
)
def test_an_answer_is_compressed_as_the_client_likes_best(accepted: str, chosen: str) -> None:
    assert chosen_encoding(accepted) == chosen
