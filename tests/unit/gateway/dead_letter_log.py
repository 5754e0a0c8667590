"""The topics of dead letters in memory: a sender of records, and a reader of what was sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from services.contracts.topics import DLQ_SUFFIX
from services.gateway.domain.dead_letters import DeadLetter, DeadRecord, read_dead_letters, read_record
from services.gateway.domain.redelivery import NewestIds
from services.gateway.ports import DeadLetterScan, DeadLetterTopics
from services.kit.core.clock import VirtualClock
from services.kit.messaging.envelope import Message, id_of
from services.kit.messaging.producer import check_size

T = TypeVar("T")


@dataclass
class DeadLetterLog(DeadLetterTopics):
    """Every topic has one partition; a record's offset is its place among those of its topic."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    records: list[tuple[Message, datetime]] = field(default_factory=list)

    async def send(self, messages: list[Message]) -> None:
        for message in messages:
            check_size(message)
        self.records += [(message, self.clock.now()) for message in messages]

    def on_topic(self, topic: str) -> list[Message]:
        return [message for message, _ in self.records if message.topic == topic]

    def all(self) -> list[DeadLetter]:
        return read_dead_letters(self._scan(None))

    async def scan(self, topics: Sequence[str], since: datetime | None) -> DeadLetterScan:
        return DeadLetterScan([record for record in self._scan(since) if record.position.topic in topics])

    def _scan(self, since: datetime | None) -> list[DeadRecord]:
        offsets: dict[str, int] = {}
        records: list[DeadRecord] = []
        for message, written_at in self.records:
            offset = offsets[message.topic] = offsets.get(message.topic, -1) + 1
            if message.topic.endswith(DLQ_SUFFIX) and (since is None or written_at >= since):
                records.append(read_record(message, 0, offset, written_at))
        return records

    async def read(self, dead_letters: Sequence[DeadLetter], use: Callable[[DeadLetter, bytes], T]) -> list[T]:
        return [use(one, self._body(one)) for one in dead_letters]

    def _body(self, dead_letter: DeadLetter) -> bytes:
        return self.on_topic(dead_letter.topic + DLQ_SUFFIX)[dead_letter.record.position.offset].value or b""

    async def newest_ids(self, topics: Sequence[str]) -> NewestIds:
        return {
            (message.topic, (message.key or b"").decode()): id_of(message)
            for message, _ in self.records
            if message.topic in topics
        }
