"""One Apache Kafka and one fleet for all faults: a fault that leaves something behind shows in the next test too.

Chance (the moment of a kill) comes from a seed that each test prints; `FAULTS_SEED` replays another.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.launcher import kafka
from services.cli.launcher.ports import any_free
from services.cli.launcher.processes import stop
from tests.e2e.fleet.scenario import Scenario, dice_of, playing
from tests.fixtures.presence import left_out

SEED = 1


class Server:
    """An Apache Kafka that a test may stop and start; its records outlive that."""

    def __init__(self, folder: Path) -> None:
        self._libraries = kafka.ensure_libraries()
        self.files = kafka.KafkaFiles(folder, (port := any_free()), any_free({port}))
        kafka.prepare(self.files, self._libraries)
        self.start()

    def start(self) -> None:
        self._process = kafka.start(self.files, self._libraries)
        kafka.await_server(self.files.bootstrap, self._process)

    def stop(self) -> None:
        stop(self._process, limit_seconds=10)


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if missing := kafka.missing_tools():
        left_out("Apache Kafka", f"{' and '.join(missing)} not found")
    try:
        server = Server(tmp_path_factory.mktemp("kafka"))
    except kafka.NoKafka as reason:
        left_out("Apache Kafka", str(reason))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka_scenario(kafka_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """A fleet on Apache Kafka, with nothing served yet."""
    with playing(tmp_path_factory.mktemp("faults"), bootstrap=kafka_server.files.bootstrap) as scenario:
        yield scenario


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    return dice_of(int(os.environ.get("FAULTS_SEED", SEED)), request.node.name)
