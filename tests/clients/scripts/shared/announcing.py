"""What every producer proves of `dataset.ready`: a run, in its key and its trace; one effect; a dead letter.

A producer hands over `send(key, body, event_id, traceparent)`, which returns once the broker has the record.
"""

import json
import os
import secrets
import time

import httpx
from confluent_kafka import Consumer, TopicPartition

BROKER = os.environ["MILLRACE_KAFKA"]
TOPIC = "dataset.ready"
DEAD = "dataset.ready.dlq"
LIMIT_SECONDS = 60.0
PAUSE_SECONDS = 0.2

REST = httpx.Client(
    base_url=os.environ["MILLRACE_REST"] + "/api/v1",
    headers={"authorization": f"Bearer {os.environ['MILLRACE_KEY']}"},
    timeout=30.0,
    trust_env=False,
)


def report(client, version, call, result="works"):
    print(json.dumps({"client": client, "version": version, "call": call, "result": result}), flush=True)


def announcement(dataset, **recipe):
    """The smallest body that says everything: recipe and deploy have defaults."""
    uri = os.environ["MILLRACE_DATASET_URI"]
    return {"dataset": dataset, "uri": uri, "model": "producers", "recipe": {"epochs": 1, **recipe}, "deploy": False}


def traceparent():
    """W3C trace context: version, trace, span, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def prove(client, version, form, send):
    """The three promises, a row each."""
    dataset = f"{client.split()[0].lower()}-{secrets.token_hex(4)}"
    first, second = traceparent(), traceparent()
    ids = [f"{dataset}-{number}" for number in range(3)]
    try:
        send(dataset, announcement(dataset), ids[0], first)
        assert [run["trace_id"] for run in runs(dataset, 1)] == [first.split("-")[1]]
        report(client, version, f"{TOPIC}, {form}: a run in the producer's trace")

        # All three have one key and so one order: once the third has its run, the second was dealt with.
        send(dataset, announcement(dataset), ids[0], first)
        send(dataset, announcement(dataset, seed=2), ids[1], second)
        assert {run["trace_id"] for run in runs(dataset, 2)} == {first.split("-")[1], second.split("-")[1]}
        report(client, version, f"{TOPIC}, {form}: the same event twice has one effect")

        send(dataset, {"dataset": dataset, "uri": "file:///nowhere"}, ids[2], first)
        headers = dead_letter(dataset)
        assert (headers["dlq-code"], headers["dlq-tries"]) == ("malformed_event", "0"), headers
        assert "model: Field required" in headers["dlq-reason"], headers
        assert headers.get("traceparent", first) == first, headers
        report(client, version, f"{TOPIC}, {form}: without a model", "refused: malformed_event, model: Field required")
    finally:
        for run in runs(dataset, 0):
            REST.post(f"/runs/{run['run']}:cancel", json={"reason": "its producer was tried"})


def runs(dataset, count):
    """The runs on this data set, once there are `count`; exactly so many. Each is cancelled: nobody needs its model."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        answer = REST.get("/runs", params={"model": "producers"})
        answer.raise_for_status()
        matching = [run for run in answer.json()["runs"] if run["dataset"] == dataset]
        for run in matching:
            REST.post(f"/runs/{run['run']}:cancel", json={"reason": "its producer was tried"})
        if len(matching) >= count:
            assert len(matching) == count or not count, matching
            return matching
        assert time.monotonic() < deadline, f"{len(matching)} of {count} runs on {dataset}"
        time.sleep(PAUSE_SECONDS)


def dead_letter(key):
    """Headers of the dead letter with this key, once it is there."""
    consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "producer-tried", "enable.auto.commit": False})
    consumer.assign([TopicPartition(DEAD, 0, 0)])
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while time.monotonic() < deadline:
            record = consumer.poll(1.0)
            if record is not None and record.error() is None and record.key() == key.encode():
                return {name: value.decode() for name, value in record.headers()}
        raise AssertionError(f"no dead letter of {key}")
    finally:
        consumer.close()


def cloud_event_headers(key, event_id, trace):
    """CloudEvents in binary mode: the attributes are headers, the body is the event alone."""
    return {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/your/service",
        "ce_type": "millrace.dataset.ready.v1",
        "ce_subject": key,
        "content-type": "application/json",
        "traceparent": trace,
    }
