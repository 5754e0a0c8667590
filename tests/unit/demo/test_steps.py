"""The demo's chapters against a scripted fleet: what they accept, what they refuse, and the numbers they tell."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from demo import steps
from demo.context import DemoContext
from demo.corpus import Corpus, Text
from demo.errors import DemoFailed
from demo.log import EventLog
from demo.steps import Trained
from demo.traffic import Mix, Reply, Traffic
from services.cli.consumer import ReceivedEvent
from services.kit.core.ids import SeededIds
from tests.clocks import START, SkippingClock

MODEL = "topics"
CHECKS = [{"name": "floor", "passed": True, "detail": "well above"}]


class Fleet:
    """Answers as version `serving`; what is posted or published makes it tell the scripted events."""

    def __init__(self) -> None:
        self.serving = 1
        self.right = {1: 0.0, 2: 1.0}
        self.log = EventLog(lambda _: None)
        self.script: dict[str, list[ReceivedEvent]] = {}
        self.answers: dict[str, Any] = {}
        self.posted: list[tuple[str, Mapping[str, Any]]] = []
        self.labels: dict[str, str] = {}
        self._requests = 0

    async def classify(self, text: str) -> Reply:
        self._requests += 1
        await asyncio.sleep(0)
        label = self.labels[text] if self.right[self.serving] else "wrong"
        return Reply(f"request-{self._requests}", self.serving, label)

    async def feedback(self, request: str, label: str) -> None:
        await asyncio.sleep(0)

    async def get(self, path: str, **query: object) -> Any:
        return self.answers.get(path, {"runs": []})

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        self.posted.append((path, body))
        self._run(path)
        return {}

    def publish(
        self,
        topic: str,
        key: str,
        body: Mapping[str, Any],
        *,
        event_id: str,
        time: datetime,
        trace: Mapping[str, str],
    ) -> None:
        self.posted.append((topic, body))
        self._run(key)

    def _run(self, cue: str) -> None:
        for event in self.script.get(cue, []):
            self.log.add(event)


class Silent:
    """A view for nobody."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def section(self, number: int, title: str) -> None: ...

    def event(self, event: ReceivedEvent) -> None: ...

    def warn(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, text: str) -> None: ...

    def block(self, lines: Sequence[str]) -> None: ...

    def close(self) -> None: ...


def event(topic: str, body: dict[str, Any], after: float = 0) -> ReceivedEvent:
    return ReceivedEvent(topic, MODEL, START + timedelta(seconds=after), "test", {}, body, offset=0, partition=0)


def fact(kind: str, after: float = 0, **payload: Any) -> ReceivedEvent:
    body = {"kind": kind, "payload": {"model": MODEL, **payload}, "reason": "so it was decided", "actor": "test"}
    return event("registry.history", body, after)


def judged_version(run: str, version: int, kind: str) -> list[ReceivedEvent]:
    return [
        fact("version_registered", version=version, trained={"run": run}),
        fact(kind, version=version, gate={"checks": CHECKS}),
    ]


def texts(prefix: str, count: int) -> tuple[Text, ...]:
    return tuple(Text(f"{prefix} {number}", "data", "module", "stdlib") for number in range(count))


def rows_of(uri: str) -> int:
    return Path(uri.removeprefix("file://")).read_text().count("\n")


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def demo(fleet: Fleet, tmp_path: Path) -> DemoContext:
    corpus = Corpus(texts("row", 30), texts("quiet", 20), texts("shifted", 20), texts("unseen", 40))
    everything = (*corpus.data_set, *corpus.quiet, *corpus.shifted, *corpus.shifted_unseen)
    fleet.labels = {text.text: text.label for text in everything}
    clock = SkippingClock()
    return DemoContext(
        home=tmp_path,
        model=MODEL,
        endpoints={},
        key="key",
        corpus=corpus,
        clock=clock,
        ids=SeededIds(1),
        log=fleet.log,
        view=Silent(),
        client=fleet,
        producer=fleet,
        traffic=Traffic(fleet, Mix.of(corpus.quiet, corpus.shifted, 1), clock),
    )


async def test_a_published_data_set_becomes_a_judged_version(demo: DemoContext, fleet: Fleet) -> None:
    name = f"{MODEL}-first"
    trained = event("model.trained", {"model": MODEL, "dataset": name, "run": "run-1", "parent": None}, after=30)
    fleet.script[name] = [trained, *judged_version("run-1", 1, "version_passed")]
    first = await steps.train_first(demo)
    assert (first.number, first.passed) == (1, True)
    assert first.seconds == 30
    (topic, body) = fleet.posted[0]
    assert topic == "dataset.ready"
    assert rows_of(body["uri"]) == 30
    assert [step.name for step in demo.steps] == ["train version 1"]


async def test_a_failed_training_ends_the_scenario_with_its_reason(demo: DemoContext, fleet: Fleet) -> None:
    failed = {"model": MODEL, "stage": "prepare", "reason": "there is one class", "retryable": False}
    fleet.script[f"{MODEL}-first"] = [event("training.failed", failed)]
    with pytest.raises(DemoFailed, match="there is one class"):
        await steps.train_first(demo)


async def test_recovery_is_measured_on_held_out_texts_before_and_after(demo: DemoContext, fleet: Fleet) -> None:
    drifted = event("drift.detected", {"version": 1})
    fleet.log.add(drifted)
    trained = event("model.trained", {"model": MODEL, "dataset": "first", "run": "run-2", "parent": 1})
    fleet.answers["/runs"] = {
        "runs": [{"run": "run-2", "cause": "drift of version 1", "status": "training", "progress": 0.5, "attempt": 1}]
    }

    async def retrain() -> None:
        while demo.traffic.totals.sent < 80:  # the measurement before
            await demo.clock.sleep(0.01)
        for event in (trained, *judged_version("run-2", 2, "version_passed")):
            fleet.log.add(event)
        fleet.serving = 2
        fleet.log.add(fact("rollout_promoted", after=12, version=2))

    retraining = asyncio.create_task(retrain())
    second, recovery = await steps.recover(demo, 1, drifted)
    await retraining
    assert second.number == 2
    assert (recovery.accuracy_before, recovery.accuracy_after) == (0.0, 1.0)
    assert recovery.rows == 40
    assert recovery.mcnemar_p < 1e-9
    assert recovery.seconds == 12


async def test_a_spoiled_version_that_passes_fails_the_scenario(demo: DemoContext, fleet: Fleet) -> None:
    name = f"{MODEL}-spoiled"
    trained = event("model.trained", {"model": MODEL, "dataset": name, "run": "run-3", "parent": None})
    fleet.script[name] = [trained, *judged_version("run-3", 3, "version_passed")]
    with pytest.raises(DemoFailed, match="the gate passed version 3"):
        await steps.refuse_bad(demo)


def forced(fleet: Fleet, end: str) -> Trained:
    verdict = {"verdict": "roll_back", "reason": "correctness shown worse", "evidence": [{"pairs": 40}], "requests": 40}
    fleet.script[f"/deployments/{MODEL}/rollouts"] = [
        fact("rollout_loaded", version=3),
        event("rollout.judged", verdict, after=4),
        fact(end, after=5, version=3),
    ]
    return Trained(3, passed=False, seconds=1.0, event=event("model.trained", {}))


async def test_a_forced_version_is_seen_to_be_rolled_back_on_its_evidence(demo: DemoContext, fleet: Fleet) -> None:
    rollback = await steps.force_bad(demo, forced(fleet, "rollout_rolled_back"))
    assert fleet.posted[0][1]["skip_gate"] is True
    assert rollback.verdict == "roll_back"
    assert rollback.evidence == [{"pairs": 40}]
    assert rollback.seconds == 5
    assert rollback.last_request_on_bad_version_after_seconds == 0.0
    assert rollback.requests_failed == 0


async def test_a_forced_version_that_stays_fails_the_scenario(demo: DemoContext, fleet: Fleet) -> None:
    with pytest.raises(DemoFailed, match="was not rolled back"):
        await steps.force_bad(demo, forced(fleet, "rollout_promoted"))
