"""Paths and roles of the Open Inference Protocol, what a load may say, and how an answer is packed."""

from typing import Any

import pytest

from services.contracts.access import METHOD_ROLES, KeyRole
from services.contracts.errors import MillraceError
from services.contracts.rpc import open_inference_pb2 as pb
from services.gateway.errors import ExtensionNotOffered, MethodNotAllowed, UnknownRoute
from services.gateway.inbound.oip.description import openapi_paths
from services.gateway.inbound.oip.paths import ROUTES, match
from services.gateway.inbound.oip.repository import read_reference
from services.gateway.inbound.oip.rest import chosen_encoding


@pytest.mark.parametrize(
    ("verb", "path", "method", "found"),
    [
        ("POST", "/v2/models/news/infer", "ModelInfer", {"model": "news"}),
        ("POST", "/v2/models/news/versions/2/infer", "ModelInfer", {"model": "news", "version": "2"}),
        ("GET", "/v2/models/stats", "ModelStatistics", {}),
        ("GET", "/v2/models/news/stats", "ModelStatistics", {"model": "news"}),
        ("POST", "/v2/repository/models/news/load", "RepositoryModelLoad", {"model": "news"}),
    ],
)
def test_a_path_finds_its_method(verb: str, path: str, method: str, found: dict[str, str]) -> None:
    route, parameters = match(verb, path)
    assert (route.method, parameters) == (method, found)


def test_what_there_is_not_is_told_apart() -> None:
    for verb, path in (("GET", "/v2/"), ("GET", "/v2/models"), ("GET", "/v2/models/a/b/c"), ("GET", "/v2x")):
        with pytest.raises(UnknownRoute):
            match(verb, path)
    for verb, path in (("GET", "/v2/models/news/infer"), ("POST", "/v2"), ("PUT", "/v2/health/live")):
        with pytest.raises(MethodNotAllowed):
            match(verb, path)
    for path in ("/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/a/register", "/v2/logging"):
        with pytest.raises(ExtensionNotOffered):
            match("POST", path)
    with pytest.raises(ExtensionNotOffered):
        match("GET", "/v2/models/news/trace/setting")


def test_every_path_is_described_and_stands_for_a_method_of_the_service() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
    assert {route.method for route in ROUTES} == methods - {"ModelStreamInfer"}
    described = openapi_paths()
    assert {(route.verb.lower(), route.path) for route in ROUTES} == {
        (verb, path) for path, item in described.items() for verb in item
    }
    ids = [operation["operationId"] for item in described.values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_roles_are_those_of_what_the_methods_do() -> None:
    roles = {route.method: METHOD_ROLES[route.rpc] for route in ROUTES if not route.keyless}
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
