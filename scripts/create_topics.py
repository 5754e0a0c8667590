"""Creates the topics of deploy/kafka/topics.yaml that a Kafka cluster has not got yet; changes none that it has.

python scripts/create_topics.py [--replication-factor N] BOOTSTRAP
"""

import argparse
import sys
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from services.cli.launcher.topics import load_topics

LIMIT_SECONDS: Final = 30.0


def missing_topics(admin: AdminClient, replication_factor: int) -> list[NewTopic]:
    existing = set(admin.list_topics(timeout=LIMIT_SECONDS).topics)
    return [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication_factor,
            config=dict(topic.config),
        )
        for topic in load_topics()
        if topic.name not in existing
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap", help="host:port, comma-separated")
    parser.add_argument("--replication-factor", type=int, default=1)
    options = parser.parse_args(arguments)
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    try:
        missing = missing_topics(admin, options.replication_factor)
        created = admin.create_topics(missing, operation_timeout=LIMIT_SECONDS) if missing else {}
        for future in created.values():
            future.result(LIMIT_SECONDS)
    except KafkaException as error:
        print(f"topics were not created: {error}", file=sys.stderr)
        return 1
    print(f"{len(missing)} topics created")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
