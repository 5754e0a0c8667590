"""Each FastStream subscriber: one topic, a group of its own, and the name of the event that it handles."""

import importlib
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from services.contracts.events import BY_TOPIC
from services.kit.core.clock import VirtualClock
from services.kit.messaging.delivery import Delivery
from services.kit.messaging.event_consumer import build_broker, kafka_subscribers
from services.kit.messaging.in_memory import InMemoryBroker

SERVICES = ("monitor", "registry", "trainer")


@pytest.mark.parametrize("service", SERVICES)
def test_a_subscriber_reads_one_topic_in_a_group_of_its_own_and_acknowledges_what_was_handled(service: str) -> None:
    events: Any = importlib.import_module(f"services.{service}.inbound.events")
    clock = VirtualClock()

    def subscribe(broker: KafkaBroker) -> None:
        events.subscribe(broker, None)

    broker = build_broker(
        subscribe, Delivery(InMemoryBroker(), clock), clock, bootstrap_servers="nowhere:1", service=service
    )
    topics = list[str]()
    for subscriber in kafka_subscribers(broker):
        [topic] = subscriber.topic_names
        topics.append(topic)
        assert topic in BY_TOPIC
        assert subscriber.group_id == f"millrace.{service}.{topic}"
        assert [call.name for call in subscriber.calls] == ["on_" + topic.replace(".", "_")]
        assert subscriber.ack_policy is AckPolicy.NACK_ON_ERROR
    assert topics
    assert len(set(topics)) == len(topics)
