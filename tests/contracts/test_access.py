"""The table of roles: complete, and nothing in it that is no method."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import MethodDescriptor

from services.contracts import rpc
from services.contracts.access import METHOD_ROLES, OIP_NOT_OFFERED, OPEN_METHODS, RANK, KeyRole, suffices
from services.kit.identity.auth import OpenToNobody, Principal, RoleTooWeak, check_role

REFLECTION = {f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")}
IN_ORDER = (KeyRole.VIEWER, KeyRole.CLIENT, KeyRole.OPERATOR, KeyRole.ADMIN)


def every_method() -> Iterator[tuple[str, MethodDescriptor]]:
    """Of every service that has stubs."""
    for module in pkgutil.iter_modules(rpc.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"{rpc.__name__}.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                for method in service.methods:
                    yield f"/{service.full_name}/{method.name}", method


def test_every_method_of_every_service_has_a_role_and_nothing_else_has_one() -> None:
    methods = {path for path, _ in every_method()}
    not_offered = {f"/inference.GRPCInferenceService/{name}" for name in OIP_NOT_OFFERED}
    assert len(methods) > 25
    known = methods | REFLECTION | not_offered
    assert known - OPEN_METHODS == set(METHOD_ROLES)
    assert not OPEN_METHODS & set(METHOD_ROLES)


def test_a_method_that_stands_in_no_table_is_open_to_nobody() -> None:
    for role in KeyRole:
        with pytest.raises(OpenToNobody):
            check_role(Principal("k", role, "default"), "/millrace.v1.RegistryService/DropEverything")


def test_each_role_may_do_what_those_before_it_may() -> None:
    for index, role in enumerate(IN_ORDER):
        assert [suffices(role, needed) for needed in IN_ORDER] == [True] * (index + 1) + [False] * (3 - index)
    assert set(RANK) == set(KeyRole)


def test_reading_is_for_viewers_inference_for_clients_changing_for_operators_and_keys_for_admins() -> None:
    needed = {path.rpartition("/")[2]: role for path, role in METHOD_ROLES.items()}
    assert needed["GetRun"] is KeyRole.VIEWER
    assert needed["Classify"] is KeyRole.CLIENT
    assert needed["StartRollout"] is KeyRole.OPERATOR
    assert needed["CreateKey"] is KeyRole.ADMIN
    assert {role for name, role in needed.items() if name.startswith(("Get", "List"))} == {
        KeyRole.VIEWER,
        KeyRole.ADMIN,
    }


def test_a_services_key_serves_and_makes_no_keys() -> None:
    service = Principal("k", KeyRole.SERVICE, "default")
    check_role(service, "/millrace.v1.InferenceService/Stream")
    check_role(service, "/millrace.v1.RegistryService/GetVersion")
    with pytest.raises(RoleTooWeak):
        check_role(service, "/millrace.v1.KeyService/CreateKey")
