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
from tests.e2e.virtual.environment import Bus, Environment
from tests.e2e.virtual.faults import Faults
from tests.e2e.virtual.platform import ClassifiedText, Platform
from tests.e2e.virtual.scenario import Scenario, Step


@dataclass(frozen=True)
class Outcome:
    """What a house remembers at the end of its story."""

    history: list[Entry]
    rebuilt: Rebuilt
    """The registry's tables held against its history."""
    state: ModelState
    deployment: Deployment
    sent: list[Message]
    windows: list[ClosedWindow]
    answered: list[ClassifiedText]
    failed: list[str]
    steps: Mapping[str, Step]
    kills: list[tuple[str, str]]
    events: list[Envelope[Event]]
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
        return [envelope for envelope in self.events if envelope.event.topic == topic]

    def step(self, name: str) -> list[ClassifiedText]:
        """The requests of one chapter."""
        later = [step.answered for step in self.steps.values() if step.answered > self.steps[name].answered]
        return self.answered[self.steps[name].answered : min(later, default=len(self.answered))]


def _plain(message: Message) -> bytes:
    headers = "\n".join(f"{name}: {value}" for name, value in message.headers if name not in TRACE_HEADERS)
    return b"\n".join([message.topic.encode(), message.key or b"", headers.encode(), message.value or b""])


def _renamed(text: str, names: dict[str, str]) -> str:
    """`run-000004.2` becomes `the 2nd run` and so on, whichever numbers were drawn."""
    return re.sub(
        r"run-[0-9a-z]{10}(\.\d+)?", lambda match: names.setdefault(match[0][:14], f"run {len(names) + 1}"), text
    )


def run_scenario(
    folder: Path, common: Path, *, seed: int, echo: bool = False, kill_share: float = 0.0, kill_seed: int = 0
) -> Outcome:
    """The whole story on a new ground in `folder`; `common` is kept for the next.

    With `echo` every message comes twice; with a `kill_share` rooms die in that share of their transactions, drawn
    from `kill_seed`.
    """
    folder.mkdir(parents=True)
    common.mkdir(exist_ok=True)
    environment = Environment(folder, common, seed, Faults(kill_seed, kill_share), Bus(echo=echo))
    return asyncio.run(_run(environment))


async def _run(environment: Environment) -> Outcome:
    platform = Platform(environment)
    scenario = Scenario(platform)
    try:
        await platform.open()
        await scenario.run_scenario()
        environment.faults.share = 0.0
        return await _outcome(scenario)
    finally:
        await platform.close()


async def _outcome(scenario: Scenario) -> Outcome:
    platform = scenario.platform
    async with platform.registry.store.transaction() as tx:
        rows = [entry async for entry in history.verified(tx)]
        rebuilt = await rebuild(tx, keep=False)
    sent = platform.environment.bus.sent
    return Outcome(
        history=rows,
        rebuilt=rebuilt,
        state=await scenario.model(),
        deployment=await scenario.deployment(),
        sent=sent,
        windows=await scenario.windows(),
        answered=platform.answered,
        failed=platform.failed,
        steps=scenario.steps,
        kills=platform.environment.faults.kills,
        events=[decode(message, platform.environment.clock.now()) for message in sent],
    )


class Chain:
    """Follows causes: from an event to what came of it."""

    def __init__(self, events: Iterable[Envelope[Any]]) -> None:
        self._events = list(events)

    def after(self, cause: Envelope[Any], fits: Callable[[Envelope[Any]], bool]) -> Envelope[Any] | None:
        """The first event that came of the cause, over any number of steps, and that fits."""
        caused = {cause.id}
        for envelope in self._events:
            if envelope.causation in caused:
                caused.add(envelope.id)
                if fits(envelope):
                    return envelope
        return None
