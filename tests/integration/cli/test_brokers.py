"""The two brokers keep the promises that the services build on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from services.cli.launcher.broker import read_ready
from services.cli.launcher.topics import load_topics
from tests.fixtures.brokers import start_embedded_process
from tests.waiting import until

TOPIC = "dataset.ready"


def produce(bootstrap: str, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "enable.idempotence": True})
    for number in range(count):
        producer.produce(topic, json.dumps({"number": number}).encode(), key=b"one", headers={"ce_id": str(number)})
    assert producer.flush(10) == 0


def consume(bootstrap: str, topic: str, group: str, count: int) -> list[int]:
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "log_level": 0}
    # The embedded broker lets a group that has emptied form again only after this time less a second.
    consumer = Consumer({**settings, "enable.auto.commit": False, "session.timeout.ms": 6000})
    consumer.subscribe([topic])
    numbers: list[int] = []
    try:
        while len(numbers) < count:
            message = consumer.poll(20)
            assert message is not None, f"{len(numbers)} of {count} came"
            assert message.error() is None
            numbers.append(json.loads(message.value() or b"")["number"])
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return numbers


def test_every_topic_is_there_with_its_partitions_and_empty(bootstrap_servers: str) -> None:
    probe = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "probe", "log_level": 0})
    topics = probe.list_topics(timeout=10).topics
    for topic in load_topics():
        assert len(topics[topic.name].partitions) == topic.partitions
        low, high = probe.get_watermark_offsets(TopicPartition(topic.name, 0), timeout=10)
        assert low == high
    probe.close()


def test_what_was_sent_comes_in_order_and_to_each_group(bootstrap_servers: str) -> None:
    produce(bootstrap_servers, TOPIC, 100)
    assert consume(bootstrap_servers, TOPIC, "first", 100) == list(range(100))
    assert consume(bootstrap_servers, TOPIC, "second", 100) == list(range(100))


@pytest.mark.slow
def test_a_group_goes_on_where_it_committed(bootstrap_servers: str) -> None:
    produce(bootstrap_servers, TOPIC, 5)
    consume(bootstrap_servers, TOPIC, "group", 5)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    producer.produce(TOPIC, b'{"number": 5}', key=b"one")
    producer.flush(10)
    assert consume(bootstrap_servers, TOPIC, "group", 1) == [5]


def test_the_embedded_broker_says_where_it_is_and_ends_on_a_signal(tmp_path: Path) -> None:
    ready_file = tmp_path / "run" / "broker.json"
    process = start_embedded_process(ready_file)
    until(lambda: read_ready(ready_file) is not None, "the ready file is there")
    ready = read_ready(ready_file)
    assert ready is not None
    assert ready.kind == "embedded"
    assert ready.pid == process.pid
    produce(ready.bootstrap, TOPIC, 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not ready_file.exists()


def test_the_embedded_broker_is_small(tmp_path: Path) -> None:
    """It must fit beside five services: neither confluent_kafka nor pydantic is imported for it."""
    script = (
        "import sys, services.cli.launcher.embedded as embedded\n"
        "embedded.EmbeddedBroker(embedded.load_topics()).close()\n"
        "print(sorted({'confluent_kafka', 'pydantic', 'asyncio'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
