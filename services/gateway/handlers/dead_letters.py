"""Dead letters of the caller's own tenant: listed, shown, and sent to their topics again."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

from services.contracts.errors import BadField
from services.contracts.events import BY_TOPIC
from services.gateway.domain.dead_letters import DeadLetter, DeadLetterFilter, read_dead_letters, read_position
from services.gateway.domain.redelivery import Redelivery, redeliver, redeliver_corrected, skip_gone, skip_unread
from services.gateway.domain.requests import Caller
from services.gateway.errors import NothingSelected, TooManyDeadLetters, UnknownDeadLetter
from services.gateway.ports import Ports
from services.kit.core.log import logger
from services.kit.messaging.envelope import Message

T = TypeVar("T")

MAX_LETTERS: Final = 1_000
"""In one call; the addresses of a call are fewer."""
BATCH_RECORDS: Final = 100
BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bodies held at once, if no single one is larger."""


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
    """What became of each letter, without its record, and how many records were sent."""

    redeliveries: list[Redelivery] = field(default_factory=list)
    sent: int = 0
    not_read: int = 0


async def list_dead_letters(selection: DeadLetterFilter, tenant: str, ports: Ports) -> Listing:
    """Raises UnknownTopic, DeadLettersNotRead."""
    scan = await ports.dead_letters.scan(selection.topics(), selection.since)
    dead_letters = _of_tenant(read_dead_letters(scan.records), tenant)
    return Listing(
        [dead_letter for dead_letter in reversed(dead_letters) if selection.selects(dead_letter)], scan.not_read
    )


async def get_dead_letter(address: str, tenant: str, ports: Ports) -> tuple[DeadLetter, bytes]:
    """The letter and its body. Raises UnknownDeadLetter, also for another tenant's, and DeadLettersNotRead."""
    return await _of_one(await _named((address,), tenant, ports), lambda *both: both, ports)


async def redeliver_dead_letters(command: RedeliverDeadLetters, caller: Caller, ports: Ports) -> Outcome:
    """Sends each letter once, and records it beside the letter.

    The marker follows the record: after a crash in between the letter seems to wait, and sending it again has no second
    effect. Raises NothingSelected, TooManyDeadLetters, UnknownDeadLetter, BadField, RedeliveredAlready,
    DeadLettersNotRead and BrokerDown; what was sent before the last two is marked.
    """
    selected = await _selected(command, caller.tenant, ports)
    outcome = Outcome(not_read=selected.not_read)
    sending = _Sending(caller.actor, ports, outcome, dry_run=command.dry_run)
    if command.corrected_body is not None:
        await sending.send([await _corrected(selected.dead_letters, command, ports)])
        return outcome
    compacted = {dead_letter.topic for dead_letter in selected.dead_letters if BY_TOPIC[dead_letter.topic].compacted}
    newest = await ports.dead_letters.newest_ids(sorted(compacted)) if compacted else {}
    for batch in _batches(selected.dead_letters):
        skipped = [skip_unread(one, newest, ports.clock.now(), again=command.again) for one in batch]
        await sending.send(await _decide(batch, skipped, ports))
    return outcome


def _batches(dead_letters: Sequence[DeadLetter]) -> Iterator[list[DeadLetter]]:
    batch: list[DeadLetter] = []
    size = 0
    for dead_letter in dead_letters:
        size += dead_letter.record.size_bytes
        if batch and (len(batch) == BATCH_RECORDS or size > BATCH_BYTES):
            yield batch
            batch, size = [], dead_letter.record.size_bytes
        batch.append(dead_letter)
    if batch:
        yield batch


async def _decide(
    batch: Sequence[DeadLetter], skipped: Sequence[Redelivery | None], ports: Ports
) -> Sequence[Redelivery]:
    decided = {one.dead_letter.address: one for one in skipped if one is not None}
    pending = [one for one in batch if one.address not in decided]
    if pending:
        redeliveries = await ports.dead_letters.read(pending, partial(redeliver, now=ports.clock.now()))
        decided |= {one.dead_letter.address: one for one in redeliveries}
    return [decided.get(one.address) or skip_gone(one) for one in batch]


async def _corrected(dead_letters: Sequence[DeadLetter], command: RedeliverDeadLetters, ports: Ports) -> Redelivery:
    if len(command.addresses) != 1:
        raise BadField(name="corrected_body", problem="it is for one letter that is named", field="corrected_body")
    correct = partial(
        redeliver_corrected, corrected=command.corrected_body or b"", now=ports.clock.now(), again=command.again
    )
    return await _of_one(dead_letters, correct, ports)


async def _of_one(dead_letters: Sequence[DeadLetter], use: Callable[[DeadLetter, bytes], T], ports: Ports) -> T:
    [dead_letter] = dead_letters
    for result in await ports.dead_letters.read([dead_letter], use):
        return result
    raise UnknownDeadLetter(address=dead_letter.address)  # its topic dropped it in between


class _Sending:
    """Sends redeliveries batch by batch, each batch's records before its markers."""

    def __init__(self, actor: str, ports: Ports, outcome: Outcome, *, dry_run: bool) -> None:
        self._actor = actor
        self._ports = ports
        self._outcome = outcome
        self._dry_run = dry_run
        self._identities: set[bytes] = set()

    async def send(self, redeliveries: Sequence[Redelivery]) -> None:
        going = [one for one in redeliveries if one.message is not None and not self._dry_run]
        if going:
            records = self._new_records(going)
            if records:
                await self._ports.dead_letters.send(records)
            now = self._ports.clock.now()
            await self._ports.dead_letters.send([one.marker(self._actor, now) for one in going])
            self._outcome.sent += len(records)
            logger.info("%s redelivered %d dead letters", self._actor, len(going))
        self._outcome.redeliveries += [replace(one, message=None) for one in redeliveries]

    def _new_records(self, going: Sequence[Redelivery]) -> list[Message]:
        """Letters of one event, given up by several services, are one record."""
        records: list[Message] = []
        for one in going:
            if one.message is not None and one.identity not in self._identities:
                self._identities.add(one.identity)
                records.append(one.message)
        return records


async def _selected(command: RedeliverDeadLetters, tenant: str, ports: Ports) -> Listing:
    """The oldest first."""
    if bool(command.addresses) == (command.selection is not None):
        raise NothingSelected
    if command.selection is None:
        return Listing(await _named(command.addresses, tenant, ports), 0)
    listing = await list_dead_letters(command.selection, tenant, ports)
    if len(listing.dead_letters) > MAX_LETTERS:
        raise TooManyDeadLetters(count=len(listing.dead_letters), limit=MAX_LETTERS)
    return Listing(listing.dead_letters[::-1], listing.not_read)


async def _named(addresses: Sequence[str], tenant: str, ports: Ports) -> list[DeadLetter]:
    """In the order of the addresses, each once. Raises UnknownDeadLetter for the first that is not there."""
    positions = dict.fromkeys(str(read_position(address)) for address in addresses)
    topics = sorted({position.partition("/")[0] for position in positions})
    scan = await ports.dead_letters.scan(topics, None)
    by_address = {one.address: one for one in _of_tenant(read_dead_letters(scan.records), tenant)}
    missing = next((position for position in positions if position not in by_address), None)
    if missing is not None:
        raise UnknownDeadLetter(address=missing)
    return [by_address[position] for position in positions]


def _of_tenant(dead_letters: list[DeadLetter], tenant: str) -> list[DeadLetter]:
    return [dead_letter for dead_letter in dead_letters if dead_letter.record.tenant == tenant]
