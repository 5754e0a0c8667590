"""deploy/k8s: what the manifests name exists, and they agree with the Dockerfiles and with each other."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.files import DEPLOY, ROOT, SERVICE_NAMES, known_variables, manifests, settings_of, variables_of

OBJECTS = list(manifests())
WORKLOADS = [(path, item) for path, item in OBJECTS if item["kind"] in ("Deployment", "Job")]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for _, item in OBJECTS if item["kind"] == kind}


def container(item: dict[str, Any]) -> dict[str, Any]:
    match: dict[str, Any] = item["spec"]["template"]["spec"]["containers"][0]
    return match


def test_kustomization_lists_every_manifest() -> None:
    listed = yaml.safe_load((DEPLOY / "k8s/kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted({path.name for path, _ in OBJECTS})


def test_each_service_has_a_deployment_and_a_service() -> None:
    assert set(of_kind("Deployment")) == set(of_kind("Service")) == set(SERVICE_NAMES)


def test_the_shared_settings_exist_and_addresses_name_services() -> None:
    data = of_kind("ConfigMap")["millrace"]["data"]
    assert set(data) - known_variables() == set()
    for name, value in data.items():
        if name.endswith("_ADDRESS"):
            host, _, port = value.partition(":")
            assert int(port) in {entry["port"] for entry in of_kind("Service")[host]["spec"]["ports"]}


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_a_services_own_settings_exist(service: str) -> None:
    given = {entry["name"] for entry in container(of_kind("Deployment")[service]).get("env") or ()}
    assert given - variables_of(settings_of(service)) == set()


def test_a_service_is_not_given_a_setting_of_another_that_it_would_refuse() -> None:
    """One map for all is fine: a room refuses unknown names of its own prefix alone."""
    for name in of_kind("ConfigMap")["millrace"]["data"]:
        for service in SERVICE_NAMES:
            if name.startswith(f"MILLRACE_{service.upper()}_"):
                assert name in variables_of(settings_of(service))


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_ports_are_those_of_the_image(service: str) -> None:
    text = (DEPLOY / f"docker/{service}.Dockerfile").read_text()
    ports = {entry["name"]: entry["containerPort"] for entry in container(of_kind("Deployment")[service])["ports"]}
    assert f"MILLRACE_{service.upper()}_HTTP_PORT={ports['http']}" in text
    assert f"MILLRACE_{service.upper()}_GRPC_PORT={ports['grpc']}" in text
    assert {entry["targetPort"] for entry in of_kind("Service")[service]["spec"]["ports"]} == set(ports)


@pytest.mark.parametrize(("path", "item"), WORKLOADS, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_nothing_runs_as_root_or_can_become_it(path: Path, item: dict[str, Any]) -> None:
    assert item["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    security = container(item)["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "limits" in container(item)["resources"]


def test_commands_name_scripts_that_exist() -> None:
    for _, item in WORKLOADS:
        for word in container(item).get("command", ()):
            if word.endswith(".py"):
                assert (ROOT / word).is_file()


def test_databases_are_requested_by_the_services_that_keep_state() -> None:
    requested = {
        entry["valueFrom"]["secretKeyRef"]["key"]
        for service in SERVICE_NAMES
        for entry in container(of_kind("Deployment")[service]).get("env") or ()
        if entry["name"].endswith("_DATABASE_URL")
    }
    created = (DEPLOY / "docker/postgres.sql").read_text()
    assert requested == {service for service in SERVICE_NAMES if f"DATABASE {service};" in created}
