"""docker-compose.yml: every file, setting, port, host and command that it names exists."""

import re
from typing import Any

import pytest

from tests.unit.deploy.files import (
    OTHERS,
    ROOT,
    SERVICE_NAMES,
    VARIABLE,
    compose,
    known_variables,
    settings_of,
    variables_of,
)

SERVICES: dict[str, dict[str, Any]] = compose()["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def service_of(service: dict[str, Any]) -> str:
    return str(service["build"]["dockerfile"].removeprefix("deploy/docker/").partition(".")[0])


def exposed(service: dict[str, Any]) -> set[str]:
    text = (ROOT / service["build"]["dockerfile"]).read_text()
    return {port for line in re.findall(r"^EXPOSE (.*)$", text, re.MULTILINE) for port in line.split()}


def test_it_has_the_real_parts_and_the_five_services() -> None:
    assert {"kafka", "postgres", "redis", "jaeger", *SERVICE_NAMES} <= set(SERVICES)
    plain = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert {"kafka", "postgres", "redis", "jaeger", "topics", *SERVICE_NAMES} == plain
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["gpu"]] == ["inference-gpu"]


def test_what_is_built_has_a_dockerfile() -> None:
    for service in OURS.values():
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", OURS)
def test_a_services_settings_exist(name: str) -> None:
    service = service_of(OURS[name])
    given = set(OURS[name].get("environment", {}))
    if service == "cli":
        assert not given
        return
    known = variables_of(settings_of(service)) | OTHERS
    assert given - known == set()
    prefixed = {variable for variable in given if variable.startswith("MILLRACE_")}
    assert all(variable.startswith(f"MILLRACE_{service.upper()}_") for variable in prefixed)


def test_addresses_name_a_service_and_a_port_that_it_has() -> None:
    for service in OURS.values():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_ADDRESS"):
                host, _, port = value.partition(":")
                assert port in exposed(SERVICES[host])
            if variable.endswith("_ADVERTISED_HOST"):
                assert value in SERVICES
    assert ":9092" in SERVICES["kafka"]["environment"]["KAFKA_LISTENERS"]


def test_published_ports_are_listened_on_and_stay_on_this_machine() -> None:
    for service in SERVICES.values():
        for published in service.get("ports", ()):
            address, _, inner = published.split(":")
            assert address == "127.0.0.1"
            if "build" in service:
                assert inner in exposed(service)


def test_databases_are_created_for_the_services_that_keep_state() -> None:
    created = set(re.findall(r"CREATE DATABASE (\w+);", (ROOT / "deploy/docker/postgres.sql").read_text()))
    requested = {
        value.rpartition("/")[2]
        for service in OURS.values()
        for name, value in service.get("environment", {}).items()
        if name.endswith("_DATABASE_URL")
    }
    assert created == requested
    assert "--dbname=registry" in " ".join(SERVICES["postgres"]["healthcheck"]["test"])


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), volume
            elif not source.startswith("$"):
                assert source in compose()["volumes"]


def test_dependencies_exist_and_can_become_healthy() -> None:
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]


def test_commands_name_scripts_that_exist() -> None:
    for service in OURS.values():
        for word in service.get("entrypoint", ()):
            if word.endswith(".py"):
                assert (ROOT / word).is_file()


def test_kafka_is_the_version_that_tests_run_on() -> None:
    pinned = re.search(r"<kafka.version>(.*)</kafka.version>", (ROOT / "deploy/kafka/pom.xml").read_text())
    assert pinned is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{pinned.group(1)}"


def test_every_setting_named_in_its_comments_exists() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    known = known_variables()
    assert set(VARIABLE.findall(text)) - known == set()


def test_the_trainer_reads_what_the_gateway_writes() -> None:
    roots = {settings_of(service).model_construct().upload_root() for service in ("gateway", "trainer")}
    assert len(roots) == 1
    mounted = [set(SERVICES[service]["volumes"]) for service in ("gateway", "trainer")]
    assert "home:/var/lib/millrace" in mounted[0] & mounted[1]
    assert not any("MILLRACE_UPLOAD_STORE" in SERVICES[service]["environment"] for service in ("gateway", "trainer"))
