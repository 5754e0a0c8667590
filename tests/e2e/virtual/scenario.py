"""The story of the demo, told by clients, producers and an operator; the rooms do the rest.

1. a data set trains version 1, which is rolled out at once;
2. quiet traffic stays quiet;
3. the topics shift: drift, labels, retraining; version 2 passes its gate, goes through a canary and takes over;
4. a spoiled data set: version 3 is refused; forced, it is rolled back on evidence;
5. a version that nobody gives feedback on is paused, and taken back by hand.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.kit.messaging.envelope import Message
from services.monitor.domain.deployments import ClosedWindow, DeploymentKey
from services.registry.domain import Deployment, ModelState
from services.registry.domain.commands import RollBack, StartRollout
from services.registry.domain.state import RolloutState
from services.registry.handlers import deployments
from tests.e2e.virtual.corpus import LABELS, Source, Text, Topic
from tests.e2e.virtual.environment import MODEL, TENANT
from tests.e2e.virtual.platform import ClassifiedText, Platform

ROWS: Final = 330
WINDOW: Final = 80
PER_SECOND: Final = 20
OPERATOR: Final = "ada"


@dataclass(frozen=True)
class Step:
    """Where one chapter of the story began: how much had been asked and said by then."""

    answered: int
    reply: int


class Scenario:
    """Drives a house through the chapters."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.source = Source(platform.environment.seed)
        self.steps: dict[str, Step] = {}

    async def run_scenario(self) -> None:
        await self.first_version()
        await self.quiet_traffic()
        await self.drift()
        await self.recovery()
        await self.spoiled_version()
        await self.forced_rollout()
        await self.thin_evidence()

    # --- the chapters

    async def first_version(self) -> None:
        self._begin("first version")
        await self.announce("chapters-1", self.source.texts(Topic.OLD, ROWS))
        await self.serves(1)

    async def quiet_traffic(self) -> None:
        self._begin("quiet traffic")
        await self.traffic(Topic.OLD, 4 * WINDOW)

    async def drift(self) -> None:
        self._begin("drift")
        for _ in range(5):
            await self.traffic(Topic.NEW, WINDOW)
            if (await self.model()).versions[0].drifted_at is not None:
                return
        raise AssertionError("the shift was not noticed")

    async def recovery(self) -> None:
        """Labels for what is asked from now on; the rest follows by itself."""
        self._begin("recovery")
        await self.traffic(Topic.NEW, 2 * PER_SECOND, labelled=2)
        await self.platform.until(lambda: self._has_versions(2), "the retraining gives version 2")
        await self.canary(2, until=2)

    async def spoiled_version(self) -> None:
        self._begin("spoiled version")
        await self.announce("chapters-spoiled", self._spoiled(ROWS))
        await self.platform.until(lambda: self._has_versions(3), "the spoiled data set gives version 3")

    async def forced_rollout(self) -> None:
        self._begin("forced rollout")
        await self.force(3)
        await self.canary(3, until=2)

    async def thin_evidence(self) -> None:
        self._begin("thin evidence")
        await self.announce("chapters-2", self.source.texts(Topic.OLD, ROWS))
        await self.platform.until(lambda: self._has_versions(4), "the new data set gives version 4")
        while (await self.rollout_state()) is not RolloutState.PAUSED:
            await self.traffic(Topic.NEW, PER_SECOND)
            await self.platform.advance(3.0)
        await self.take_back()
        await self.serves(2)

    # --- what people do

    async def announce(self, dataset: str, texts: Iterable[Text]) -> None:
        """A producer that knows nothing of CloudEvents writes a file and says so in plain JSON."""
        self.platform.environment.data.mkdir(exist_ok=True)
        path = self.platform.environment.data / f"{dataset}.jsonl"
        path.write_text("".join(json.dumps({"text": text.body, "label": text.label}) + "\n" for text in texts))
        reply = {"dataset": dataset, "uri": path.resolve().as_uri(), "model": MODEL}
        await self.platform.say(Message("dataset.ready", dataset.encode(), json.dumps(reply).encode()))

    async def traffic(self, topic: Topic, requests: int, *, labelled: int = 0) -> list[ClassifiedText]:
        """So many requests, spread over time; of every `labelled` of them one is told its right answer."""
        answered: list[ClassifiedText] = []
        for _ in range(requests // PER_SECOND):
            for number, text in enumerate(self.source.texts(topic, PER_SECOND)):
                answer = await self.platform.classify(text)
                if answer is not None:
                    answered.append(answer)
                    if labelled and number % labelled == 0:
                        await self.platform.label(answer)
            await self.platform.advance(1.0)
        return answered

    async def canary(self, version: int, *, until: int) -> None:
        """Labelled traffic of the new topic until the rollout has ended with version `until` serving."""
        await self.platform.until(lambda: self._is_on_trial(version), f"version {version} is on trial")
        for _ in range(60):
            if (await self.deployment()).active_rollout is None:
                break
            await self.traffic(Topic.NEW, PER_SECOND, labelled=2)
        await self.serves(until)

    async def force(self, version: int) -> None:
        command = StartRollout(MODEL, version, OPERATOR, "I want to see it fail", skip_gate=True)
        await self.platform.surely(
            "registry",
            lambda _: deployments.start_rollout(command, str(version), TENANT, self.platform.registry.ports),
        )

    async def take_back(self) -> None:
        command = RollBack(MODEL, OPERATOR, "nobody tells whether it is right")
        await self.platform.surely(
            "registry", lambda _: deployments.execute(command, TENANT, self.platform.registry.ports)
        )

    # --- what is seen

    async def serves(self, version: int) -> None:
        """Returns once the version has all traffic, and nothing else is loaded."""

        async def alone() -> bool:
            targets = (await self.deployment()).targets
            serving = [target.version.version for target in targets if target.weight == 100]
            return serving == [version] and len(targets) == 1

        await self.platform.until(alone, f"version {version} serves alone")

    async def model(self) -> ModelState:
        async with self.platform.registry.store.reading() as tx:
            return await tx.model(TENANT, MODEL)

    async def deployment(self) -> Deployment:
        async with self.platform.registry.store.reading() as tx:
            return await tx.deployment(TENANT, MODEL)

    async def rollout_state(self) -> RolloutState | None:
        rollout = (await self.deployment()).rollout
        return rollout.state if rollout is not None else None

    async def windows(self) -> list[ClosedWindow]:
        """The tested ones, in order."""
        async with self.platform.monitor.ports.store.reading() as tx:
            return (await tx.tested_windows(DeploymentKey(TENANT, MODEL), 500))[::-1]

    async def _has_versions(self, count: int) -> bool:
        return len((await self.model()).versions) >= count

    async def _is_on_trial(self, version: int) -> bool:
        rollout = (await self.deployment()).active_rollout
        return rollout is not None and rollout.version.version == version and rollout.state is RolloutState.CANARY

    def _begin(self, step: str) -> None:
        self.steps[step] = Step(len(self.platform.answered), len(self.platform.environment.bus.sent))

    def _spoiled(self, rows: int) -> Iterable[Text]:
        """Two labels in three are those of another class."""
        for number, text in enumerate(self.source.texts(Topic.OLD, rows)):
            wrong = LABELS[(LABELS.index(text.label) + 1 + number % 4) % len(LABELS)]
            yield Text(text.body, wrong if number % 3 else text.label, text.topic)
