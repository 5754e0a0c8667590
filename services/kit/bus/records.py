"""What every reader of Kafka shares: from a record to a message, and how long to wait."""

from typing import Any, Final

from services.kit.envelope import Message

RETRY_SECONDS: Final = 2.0
STOP_SECONDS: Final = 3.0


def to_message(record: Any) -> Message:
    """From an aiokafka record; header bytes that are not UTF-8 are replaced, not refused, a null is nothing."""
    headers = tuple((name, (value or b"").decode("utf-8", "replace")) for name, value in record.headers or ())
    return Message(topic=record.topic, key=record.key, value=record.value, headers=headers)
