"""Dead letters of the caller's own tenant: listed, shown, and sent to their topics again."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.contracts.errors import BadField
from services.contracts.events import BY_TOPIC
from services.gateway.domain.dead_letters import DeadLetter, DeadLetterFilter, read_dead_letters, read_position
from services.gateway.domain.redelivery import Redelivery, redeliver, redeliver_corrected, skip_unread
from services.gateway.domain.requests import Caller
from services.gateway.errors import NothingSelected, TooManyDeadLetters, UnknownDeadLetter
from services.gateway.ports import Ports
from services.kit.core.log import logger
from services.kit.messaging.envelope import Message

MAX_LETTERS: Final = 5_000
"""In one call; the addresses of a call are fewer."""
BATCH_RECORDS: Final = 100
BATCH_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class Listing:
    """The tenant's letters that a filter selects, newest first; `not_read` counts older records of all tenants."""

    dead_letters: list[DeadLetter]
    not_read: int


@dataclass(frozen=True)
class RedeliverDeadLetters:
    """Either dead letters by address, or those that a filter selects; `corrected_body` is for one that is named."""

    addresses: tuple[str, ...] = ()
    selection: DeadLetterFilter | None = None
    again: bool = False
    corrected_body: bytes | None = None
    dry_run: bool = False


@dataclass
class Outcome:
    """What became of each letter, and how many records were sent."""

    redeliveries: list[Redelivery] = field(default_factory=list)
    sent: int = 0


async def list_dead_letters(selection: DeadLetterFilter, tenant: str, ports: Ports) -> Listing:
    """Raises UnknownTopic, DeadLettersNotRead."""
    scan = await ports.dead_letters.scan(selection.topics(), selection.since)
    dead_letters = _of_tenant(read_dead_letters(scan.records), tenant)
    return Listing(
        [dead_letter for dead_letter in reversed(dead_letters) if selection.selects(dead_letter)], scan.not_read
    )


async def get_dead_letter(address: str, tenant: str, ports: Ports) -> tuple[DeadLetter, bytes]:
    """The letter and its body. Raises UnknownDeadLetter, also for another tenant's, and DeadLettersNotRead."""
    [dead_letter] = await _named((address,), tenant, ports)
    async for _, body in ports.dead_letters.read([dead_letter]):
        return dead_letter, body
    raise UnknownDeadLetter(address=address)  # its topic dropped it in between


async def redeliver_dead_letters(command: RedeliverDeadLetters, caller: Caller, ports: Ports) -> Outcome:
    """Sends each letter once, and records it beside the letter.

    The marker follows the record: after a crash in between the letter seems to wait, and sending it again has no second
    effect. Raises NothingSelected, TooManyDeadLetters, UnknownDeadLetter, BadField, RedeliveredAlready, BrokerDown.
    """
    dead_letters = await _selected(command, caller.tenant, ports)
    if command.corrected_body is not None:
        return await _correct(dead_letters, command, caller, ports)
    now = ports.clock.now()
    compacted = {dead_letter.topic for dead_letter in dead_letters if BY_TOPIC[dead_letter.topic].compacted}
    newest = await ports.dead_letters.newest_ids(sorted(compacted)) if compacted else {}
    skipped = {
        dead_letter.address: skip_unread(dead_letter, newest, now, again=command.again) for dead_letter in dead_letters
    }
    outcome = Outcome()
    decided = {name: one for name, one in skipped.items() if one is not None}
    sending = _Sending(caller.actor, ports, outcome, dry_run=command.dry_run)
    async for dead_letter, body in _bodies(
        [dead_letter for dead_letter in dead_letters if dead_letter.address not in decided], ports
    ):
        decided[dead_letter.address] = redeliver(dead_letter, body, now)
        await sending.add(decided[dead_letter.address])
    await sending.flush()
    outcome.redeliveries = [
        decided.get(dead_letter.address, Redelivery(dead_letter, skipped="gone", why="its topic dropped it meanwhile"))
        for dead_letter in dead_letters
    ]
    return outcome


async def _bodies(dead_letters: Sequence[DeadLetter], ports: Ports) -> AsyncIterator[tuple[DeadLetter, bytes]]:
    if dead_letters:
        async for pair in ports.dead_letters.read(dead_letters):
            yield pair


async def _correct(
    dead_letters: Sequence[DeadLetter], command: RedeliverDeadLetters, caller: Caller, ports: Ports
) -> Outcome:
    if len(command.addresses) != 1:
        raise BadField(name="corrected_body", problem="it is for one letter that is named", at="corrected_body")
    outcome, now = Outcome(), ports.clock.now()
    sending = _Sending(caller.actor, ports, outcome, dry_run=command.dry_run)
    async for dead_letter, body in ports.dead_letters.read(dead_letters):
        corrected = command.corrected_body or b""
        redelivery = redeliver_corrected(dead_letter, body, corrected, now, again=command.again)
        outcome.redeliveries.append(redelivery)
        await sending.add(redelivery)
    await sending.flush()
    return outcome


class _Sending:
    """Sends redeliveries in bounded batches, each batch's records before its markers."""

    def __init__(self, actor: str, ports: Ports, outcome: Outcome, *, dry_run: bool) -> None:
        self._actor = actor
        self._ports = ports
        self._outcome = outcome
        self._dry_run = dry_run
        self._seen: set[bytes] = set()
        self._records: list[Message] = []
        self._markers: list[Message] = []
        self._bytes = 0

    async def add(self, redelivery: Redelivery) -> None:
        if redelivery.message is None or self._dry_run:
            return
        if redelivery.identity not in self._seen:
            self._seen.add(redelivery.identity)
            self._records.append(redelivery.message)
            self._bytes += len(redelivery.message.value or b"")
        self._markers.append(redelivery.marker(self._actor, self._ports.clock.now()))
        if len(self._markers) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        if not self._markers:
            return
        records, markers = self._records, self._markers
        self._records, self._markers, self._bytes = [], [], 0
        if records:
            await self._ports.dead_letters.send(records)
        await self._ports.dead_letters.send(markers)
        self._outcome.sent += len(records)
        logger.info("%s redelivered %d dead letters", self._actor, len(markers))


async def _selected(command: RedeliverDeadLetters, tenant: str, ports: Ports) -> list[DeadLetter]:
    if bool(command.addresses) == (command.selection is not None):
        raise NothingSelected
    if command.selection is None:
        return await _named(command.addresses, tenant, ports)
    listing = await list_dead_letters(command.selection, tenant, ports)
    if len(listing.dead_letters) > MAX_LETTERS:
        raise TooManyDeadLetters(count=len(listing.dead_letters), limit=MAX_LETTERS)
    return listing.dead_letters[::-1]


async def _named(addresses: Sequence[str], tenant: str, ports: Ports) -> list[DeadLetter]:
    """In the order of the names, each once. Raises UnknownDeadLetter for the first that is not there."""
    positions = [str(read_position(name)) for name in dict.fromkeys(addresses)]
    topics = sorted({name.partition("/")[0] for name in positions})
    scan = await ports.dead_letters.scan(topics, None)
    dead_letters = {
        dead_letter.address: dead_letter for dead_letter in _of_tenant(read_dead_letters(scan.records), tenant)
    }
    missing = next((name for name in positions if name not in dead_letters), None)
    if missing is not None:
        raise UnknownDeadLetter(address=missing)
    return [dead_letters[name] for name in dict.fromkeys(positions)]


def _of_tenant(dead_letters: list[DeadLetter], tenant: str) -> list[DeadLetter]:
    return [dead_letter for dead_letter in dead_letters if dead_letter.record.tenant == tenant]
