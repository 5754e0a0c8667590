"""What every consumer proves: the registry's history is whole, in order and in one chain."""

import json
import os
import time
from itertools import pairwise

from confluent_kafka import Consumer, TopicPartition

BROKER = os.environ["MILLRACE_KAFKA"]
LIMIT_SECONDS = 30.0


def report(client, version, call, result="works"):
    print(json.dumps({"client": client, "version": version, "call": call, "result": result}), flush=True)


def in_one_chain(facts):
    """Numbered from 1 without a gap, each with the hash of the one before it."""
    assert len(facts) > 3, facts
    assert [fact["sequence"] for fact in facts] == list(range(1, len(facts) + 1))
    for before, after in pairwise(facts):
        assert after["previous_hash"] == before["hash"], (before, after)


def first_records(topic, count):
    """The first records of a topic, whichever partition they are in; no group is needed to look."""
    consumer = Consumer({"bootstrap.servers": BROKER, "group.id": "looking", "enable.auto.commit": False})
    numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    records, deadline = [], time.monotonic() + LIMIT_SECONDS
    try:
        while len(records) < count:
            record = consumer.poll(1.0)
            if record is not None and record.error() is None:
                records.append(record)
            assert time.monotonic() < deadline, f"{len(records)} of {count} records on {topic}"
        return records
    finally:
        consumer.close()
