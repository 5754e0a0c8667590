"""Apache Kafka goes away and comes back on its port: writer and bus go on."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.cli.launcher import kafka
from services.cli.launcher.ports import any_free
from services.cli.launcher.processes import stop
from services.cli.launcher.topics import load_topics
from services.kit.messaging.producer import BrokerDown, EventProducer
from tests.fixtures.presence import left_out
from tests.integration.kit.consumers import MessagingUnderTest
from tests.integration.kit.test_messaging import impatient, running, until

__all__ = ["impatient"]


class Server:
    """An Apache Kafka of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.process: subprocess.Popen[bytes]
        self.messaging = kafka.KafkaFiles(folder, (port := any_free()), any_free({port}))
        self.libraries = kafka.ensure_libraries()
        kafka.prepare(self.messaging, self.libraries)
        self.start()
        event_filter = {"feedback.received", "feedback.received.dlq", "training.failed", "training.failed.dlq"}
        kafka.create_topics(self.messaging.bootstrap, [topic for topic in load_topics() if topic.name in event_filter])

    def start(self) -> None:
        self.process = kafka.start(self.messaging, self.libraries)
        kafka.await_server(self.messaging.bootstrap, self.process)

    def stop(self) -> None:
        stop(self.process, limit_seconds=10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if missing := kafka.missing_tools():
        left_out("Apache Kafka", f"{' and '.join(missing)} not found")
    made = Server(tmp_path / "kafka")
    yield made
    made.stop()


@pytest.mark.kafka
async def test_nothing_is_lost_over_a_restart_of_the_broker(server: Server) -> None:
    writer = EventProducer(server.messaging.bootstrap, "test", send_seconds=3.0)
    messaging = MessagingUnderTest(server.messaging.bootstrap, writer)
    bus = messaging.bus()
    async with running(bus.run):
        await messaging.send("before")
        await until(lambda: messaging.taken == ["before"], "the event before")
        await asyncio.to_thread(server.stop)
        await until(lambda: not bus.connected.is_set(), "the loss was noticed")
        with pytest.raises(BrokerDown):
            await messaging.send("away")
        await asyncio.to_thread(server.start)
        while True:
            try:
                await messaging.send("after")
                break
            except BrokerDown:
                await asyncio.sleep(0.2)
        await until(lambda: "after" in messaging.taken, "the event after")
        await until(bus.connected.is_set, "it is connected again")
    await writer.close()
