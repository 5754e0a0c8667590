"""Fleets for real clients: one model that was trained by the fleet itself, and the addresses of its endpoints."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.launcher.kafka import NoKafka, ensure_libraries
from tests.clients import tools
from tests.e2e.fleet.scenario import Scenario, playing
from tests.unit.trainer.tiny import texts

Environment = dict[str, str]


@pytest.fixture(scope="session")
def embedded_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A fleet on the embedded broker."""
    with playing(tmp_path_factory.mktemp("clients")) as scenario:
        yield environment_of(scenario) | kafka_tools()


@pytest.fixture(scope="session")
def kafka_environment(tmp_path_factory: pytest.TempPathFactory, apache_kafka_server: str) -> Iterator[Environment]:
    """A fleet on Apache Kafka."""
    with playing(tmp_path_factory.mktemp("clients-kafka"), bootstrap=apache_kafka_server) as scenario:
        yield environment_of(scenario) | kafka_tools()


@pytest.fixture(scope="session")
def grpcurl() -> str:
    return tools.grpcurl()


def kafka_tools() -> Environment:
    """The jars of Kafka's own tools, where Java and Maven are; a script that needs them says so without."""
    try:
        return {"MILLRACE_KAFKA_CLASSPATH": f"{ensure_libraries()}/*"}
    except NoKafka:
        return {}


def environment_of(scenario: Scenario) -> dict[str, str]:
    """What a script finds in its environment, once the fleet serves a first version."""
    scenario.serve_first()
    endpoints = scenario.fleet.state.endpoints
    rows = texts(12, seed=7)
    data: Path = scenario.write("for-producers", texts(240, seed=8))
    return {
        "MILLRACE_REST": endpoints["rest"],
        "MILLRACE_GRPC": endpoints["grpc"],
        "MILLRACE_KAFKA": endpoints["kafka"],
        "MILLRACE_BROKER": scenario.fleet.state.broker,
        "MILLRACE_KEY": scenario.fleet.key,
        "MILLRACE_DEPLOYMENT": scenario.model,
        "MILLRACE_TEXTS": json.dumps([row["text"] for row in rows]),
        "MILLRACE_LABELS": json.dumps(sorted({row["label"] for row in rows})),
        "MILLRACE_DATASET_URI": data.as_uri(),
    }
