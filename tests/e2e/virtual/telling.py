"""A story told to its end, and what is left of it to look at."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from services.contracts.events import Event
from services.kit.messaging.envelope import TRACE_HEADERS, Envelope, Message, decode
from services.kit.persistence.sql import history
from services.kit.persistence.sql.history import Entry
from services.monitor.domain.deployments import ClosedWindow
from services.registry.domain import Deployment, ModelState
from services.registry.outbound.store import Rebuilt, rebuild
from tests.e2e.virtual.faults import Faults
from tests.e2e.virtual.ground import Bus, Ground
from tests.e2e.virtual.house import Asked, House
from tests.e2e.virtual.story import Chapter, Story


@dataclass(frozen=True)
class Told:
    """What a house remembers at the end of its story."""

    history: list[Entry]
    rebuilt: Rebuilt
    """The registry's tables held against its history."""
    state: ModelState
    deployment: Deployment
    sent: list[Message]
    windows: list[ClosedWindow]
    asked: list[Asked]
    failed: list[str]
    chapters: Mapping[str, Chapter]
    kills: list[tuple[str, str]]
    heard: list[Envelope[Event]]
    """The messages that were sent, decoded."""

    def history_bytes(self) -> bytes:
        """Every column of every row, hashes included, as canonical JSON."""
        return b"\n".join(orjson.dumps(asdict(entry), option=orjson.OPT_SORT_KEYS) for entry in self.history)

    def sent_bytes(self) -> list[bytes]:
        """All messages in the order of sending; trace ids are left out, since the tracer draws them."""
        return [_plain(message) for message in self.sent]

    def outline(self) -> list[tuple[str, str, str, str]]:
        """Kind, payload, actor and reason of every fact. Runs are named by their order, their attempts left out: a
        name that was made in a transaction nobody committed is not made again."""
        names: dict[str, str] = {}
        return [
            (
                entry.kind,
                _renamed(orjson.dumps(entry.payload).decode(), names),
                entry.actor,
                _renamed(entry.reason, names),
            )
            for entry in self.history
        ]

    def of(self, topic: str) -> list[Envelope[Any]]:
        return [envelope for envelope in self.heard if envelope.event.topic == topic]

    def chapter(self, name: str) -> list[Asked]:
        """The requests of one chapter."""
        later = [chapter.asked for chapter in self.chapters.values() if chapter.asked > self.chapters[name].asked]
        return self.asked[self.chapters[name].asked : min(later, default=len(self.asked))]


def _plain(message: Message) -> bytes:
    headers = "\n".join(f"{name}: {value}" for name, value in message.headers if name not in TRACE_HEADERS)
    return b"\n".join([message.topic.encode(), message.key or b"", headers.encode(), message.value or b""])


def _renamed(text: str, names: dict[str, str]) -> str:
    """`run-000004.2` becomes `the 2nd run` and so on, whichever numbers were drawn."""
    return re.sub(
        r"run-[0-9a-z]{10}(\.\d+)?", lambda found: names.setdefault(found[0][:14], f"run {len(names) + 1}"), text
    )


def tell(
    folder: Path, common: Path, *, seed: int, echo: bool = False, kill_share: float = 0.0, kill_seed: int = 0
) -> Told:
    """The whole story on a new ground in `folder`; `common` is kept for the next.

    With `echo` every message comes twice; with a `kill_share` rooms die in that share of their transactions, drawn
    from `kill_seed`.
    """
    folder.mkdir(parents=True)
    common.mkdir(exist_ok=True)
    ground = Ground(folder, common, seed, Faults(kill_seed, kill_share), Bus(echo=echo))
    return asyncio.run(_tell(ground))


async def _tell(ground: Ground) -> Told:
    house = House(ground)
    story = Story(house)
    try:
        await house.open()
        await story.tell()
        ground.faults.share = 0.0
        return await _told(story)
    finally:
        await house.close()


async def _told(story: Story) -> Told:
    house = story.house
    async with house.registry.store.transaction() as tx:
        rows = [entry async for entry in history.verified(tx)]
        rebuilt = await rebuild(tx, keep=False)
    sent = house.ground.bus.sent
    return Told(
        history=rows,
        rebuilt=rebuilt,
        state=await story.model(),
        deployment=await story.deployment(),
        sent=sent,
        windows=await story.windows(),
        asked=house.asked,
        failed=house.failed,
        chapters=story.chapters,
        kills=house.ground.faults.kills,
        heard=[decode(message, house.ground.clock.now()) for message in sent],
    )


class Chain:
    """Follows causes: from an event to what came of it."""

    def __init__(self, heard: Iterable[Envelope[Any]]) -> None:
        self._heard = list(heard)

    def after(self, cause: Envelope[Any], fits: Callable[[Envelope[Any]], bool]) -> Envelope[Any] | None:
        """The first event that came of the cause, over any number of steps, and that fits."""
        caused = {cause.id}
        for envelope in self._heard:
            if envelope.causation in caused:
                caused.add(envelope.id)
                if fits(envelope):
                    return envelope
        return None
