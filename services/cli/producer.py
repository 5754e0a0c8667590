"""Sending records as an outside producer does, and waiting until the broker has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from services.cli.brokers import NoBroker
from services.cli.errors import CliError

if TYPE_CHECKING:
    from services.kit.messaging.envelope import Message

SEND_SECONDS: Final = 15.0
AT_ONCE: Final = 500


@dataclass(frozen=True)
class Sent:
    """Where the broker put a record."""

    topic: str
    partition: int
    offset: int


class Sender(Protocol):
    """Returns once the broker has all of them, in this order for each key; the place of each. Raises CliError."""

    def __call__(self, messages: Sequence["Message"]) -> list[Sent]: ...


class RecordSender:
    """`Sender` to one broker; keys go to the partitions that the services and Java choose for them."""

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka import Producer

        self._bootstrap = bootstrap
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "millrace-cli",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.timeout.ms": int(SEND_SECONDS * 1000),
                "log_level": 0,
            }
        )

    def __call__(self, messages: Sequence["Message"]) -> list[Sent]:
        placed: list[Sent] = []
        for start in range(0, len(messages), AT_ONCE):
            placed += self._send(messages[start : start + AT_ONCE])
        return placed

    def _send(self, messages: Sequence["Message"]) -> list[Sent]:
        placed: list[Sent] = []
        problems: list[str] = []

        def delivered(error: Any, record: Any) -> None:
            if error is not None:
                problems.append(str(error.str()))
            else:
                placed.append(Sent(record.topic(), record.partition(), record.offset()))

        for message in messages:
            headers = [(name, value.encode()) for name, value in message.headers]
            self._producer.produce(
                message.topic, message.value, key=message.key, headers=headers, on_delivery=delivered
            )  # fmt: skip
        waiting = self._producer.flush(SEND_SECONDS + 1)
        if waiting or problems:
            raise self._failed(len(placed), len(messages), problems)
        return placed

    def _failed(self, placed: int, expected: int, problems: list[str]) -> CliError:
        reason = problems[0] if problems else "it did not answer in time"
        return NoBroker(self._bootstrap, f"took {placed} of {expected} records: {reason}")
