"""From a record of aiokafka to a message."""

from typing import Any

from services.kit.messaging.envelope import Message


def to_message(record: Any) -> Message:
    """Header bytes that are not UTF-8 are replaced, not refused; a null is nothing."""
    headers = tuple((name, (value or b"").decode("utf-8", "replace")) for name, value in record.headers or ())
    return Message(topic=record.topic, key=record.key, value=record.value, headers=headers)
