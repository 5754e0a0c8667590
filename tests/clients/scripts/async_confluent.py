"""confluent-kafka: asks by Kafka with keys and correlation ids of its own, and waits for its answers in a group."""

import json
import os
import time
import uuid

import confluent_kafka

KAFKA = os.environ["MILLRACE_KAFKA"]
DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
LABELS = json.loads(os.environ["MILLRACE_LABELS"])
CORRELATION_ID = f"workflow-{uuid.uuid4()}"
SECONDS = 60


def report(call, result="works"):
    document = {"client": "confluent-kafka", "version": confluent_kafka.__version__, "call": call, "result": result}
    print(json.dumps(document), flush=True)


def send_request(producer, key, body):
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid.uuid4()),
        "ce_source": "/async-confluent",
        "ce_type": "millrace.inference.requested.v1",
        "ce_correlationid": CORRELATION_ID,
    }
    producer.produce("inference.requested", json.dumps(body).encode(), key=key, headers=headers)
    return headers["ce_id"]


def answers(consumer, expected):
    """By the id of the request's event."""
    by_request, end = {}, time.monotonic() + SECONDS
    while expected - by_request.keys() and time.monotonic() < end:
        message = consumer.poll(1.0)
        if message is None or message.error():
            continue
        headers = {name: value.decode() for name, value in message.headers()}
        if headers.get("ce_correlationid") == CORRELATION_ID:
            by_request.setdefault(headers["ce_causationid"], (message.key(), json.loads(message.value())))
    assert not expected - by_request.keys(), f"{len(by_request)} of {len(expected)} came"
    return by_request


group = {"group.id": f"async-confluent-{uuid.uuid4()}", "auto.offset.reset": "earliest"}
consumer = confluent_kafka.Consumer({"bootstrap.servers": KAFKA, **group})
consumer.subscribe(["inference.completed"])
producer = confluent_kafka.Producer({"bootstrap.servers": KAFKA, "enable.idempotence": True})
try:
    keys = {}
    for number, text in enumerate(TEXTS):
        keys[send_request(producer, f"order-{number}".encode(), {"deployment": DEPLOYMENT, "texts": [text]})] = number
    nobody = send_request(producer, b"\x00nobody", {"deployment": "nobody", "texts": ["a"]})
    assert producer.flush(SECONDS) == 0
    came = answers(consumer, {*keys, nobody})
    for event, number in keys.items():
        key, body = came[event]
        assert key == f"order-{number}".encode()
        assert body["failure"] is None, body
        assert body["predictions"][0]["label"] in LABELS
    report("inference.requested, answered on inference.completed under its own key and correlation")
    key, body = came[nobody]
    assert (key, body["failure"]["code"]) == (b"\x00nobody", "unknown_deployment"), body
    report("inference.requested of an unknown deployment", "refused: unknown_deployment, on inference.completed")
finally:
    consumer.close()
