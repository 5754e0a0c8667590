"""The CloudEvents SDK: its Kafka bindings in binary and in structured mode, sent by confluent-kafka."""

from importlib.metadata import version

import confluent_kafka
from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from shared.announcing import BROKER, TOPIC, prove

CLIENT, VERSION = "cloudevents", version("cloudevents")

producer = confluent_kafka.Producer(
    {"bootstrap.servers": BROKER, "enable.idempotence": True, "partitioner": "murmur2_random"}
)


def event_of(key, body, event_id, trace):
    attributes = {
        "id": event_id,
        "source": "/your/service",
        "type": "millrace.dataset.ready.v1",
        "subject": key,
        "datacontenttype": "application/json",
        "traceparent": trace,
    }
    return CloudEvent(attributes, body)


def send(message):
    problems = []
    producer.produce(
        TOPIC,
        key=message.key,
        value=message.value,
        headers=message.headers,
        on_delivery=lambda error, _: problems.append(error) if error else None,
    )
    assert producer.flush(30) == 0
    assert not problems, problems


def binary(*attributes):
    send(kafka.to_binary_event(event_of(*attributes), key_mapper=lambda event: event.get_subject()))


def structured(*attributes):
    send(kafka.to_structured_event(event_of(*attributes), key_mapper=lambda event: event.get_subject()))


prove(CLIENT, VERSION, "CloudEvents binary", binary)
prove(CLIENT, VERSION, "CloudEvents structured", structured)
