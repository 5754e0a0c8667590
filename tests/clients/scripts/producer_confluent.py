"""confluent-kafka: plain JSON, and CloudEvents in binary mode."""

import json

import confluent_kafka
from shared.announcing import BROKER, TOPIC, cloud_event_headers, prove

CLIENT, VERSION = "confluent-kafka", confluent_kafka.__version__

# murmur2, as Java and aiokafka have it: librdkafka's own default puts a key into another partition than they do.
producer = confluent_kafka.Producer(
    {"bootstrap.servers": BROKER, "enable.idempotence": True, "partitioner": "murmur2_random"}
)


def send(key, value, headers):
    problems = []
    producer.produce(
        TOPIC,
        key=key,
        value=value,
        headers=headers,
        on_delivery=lambda error, _: problems.append(error) if error else None,
    )
    assert producer.flush(30) == 0
    assert not problems, problems


def plain(key, body, _, trace):
    send(key, json.dumps(body), {"traceparent": trace})


def binary(key, body, event_id, trace):
    send(key, json.dumps(body), cloud_event_headers(key, event_id, trace))


prove(CLIENT, VERSION, "plain JSON", plain)
prove(CLIENT, VERSION, "CloudEvents binary", binary)
