"""confluent-kafka: the registry's history whole and in order, and a group of one's own that goes on where it was."""

import json
import secrets

import confluent_kafka
from shared.listening import BROKER, in_one_chain, report

CLIENT, VERSION = "confluent-kafka", confluent_kafka.__version__
TOPIC = "registry.history"


def consume(group, count=None):
    """Records of the group, committed; until so many came, or none comes for some seconds."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": BROKER,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,  # the embedded broker lets a group form again only after that
        }
    )
    consumer.subscribe([TOPIC])
    records = []
    try:
        while count is None or len(records) < count:
            record = consumer.poll(20.0 if not records else 5.0)
            if record is None:
                break
            assert record.error() is None, record.error()
            records.append(record)
        if records:
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return records


def full_history():
    facts = [json.loads(record.value()) for record in consume(f"audit-{secrets.token_hex(4)}")]
    in_one_chain(facts)
    report(CLIENT, VERSION, f"{TOPIC} from the beginning, its hashes in one chain")


def group_of_ones_own():
    group = f"audit-{secrets.token_hex(4)}"
    first = consume(group, count=3)
    rest = consume(group)
    sequences = [json.loads(record.value())["sequence"] for record in first + rest]
    assert sequences == list(range(1, len(sequences) + 1)), sequences
    report(CLIENT, VERSION, f"{TOPIC}, a group that commits and goes on where it was")


full_history()
group_of_ones_own()
