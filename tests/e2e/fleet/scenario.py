"""The loop as a story: a data set is announced, a version is trained, judged, rolled out and promoted."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from services.cli.consumer import ReceivedEvent
from services.kit.core.ids import SystemIds
from tests.e2e.fleet.clients import Client, OutsideProducer, Row, Traffic
from tests.e2e.fleet.event_log import EventLog, listening
from tests.e2e.fleet.running import Fleet, running_fleet
from tests.unit.trainer.tiny import texts, write_jsonl

ROWS: Final = 240
RECIPE: Final[dict[str, float]] = {
    "epochs": 8,
    "max_length": 32,
    "batch_size": 8,
    "learning_rate": 0.01,
    "head_learning_rate": 0.1,
    "test_rows": 60,
    "reference_rows": 60,
}
TRAINED_SECONDS: Final = 300.0
MOVE_SECONDS: Final = 180.0


@dataclass
class Scenario:
    """One model on one fleet."""

    fleet: Fleet
    log: EventLog
    client: Client
    producer: OutsideProducer
    model: str = "topics"
    ids: SystemIds = field(default_factory=SystemIds)

    def write(self, name: str, rows: Sequence[Row]) -> Path:
        return write_jsonl(self.fleet.home.datasets / f"{name}.jsonl", [dict(row) for row in rows])

    def dataset(self, name: str, *, seed: int = 0, epochs: int = 8) -> dict[str, Any]:
        """A data set on disk, and the `dataset.ready` that tells of it."""
        path = self.write(name, texts(ROWS, seed=seed))
        # A longer run takes smaller steps and ends as good: a much better champion would refuse all that come after it.
        pace = int(RECIPE["epochs"]) / epochs
        rates = {name: RECIPE[name] * pace for name in ("learning_rate", "head_learning_rate")}
        recipe = RECIPE | rates | {"epochs": epochs, "seed": seed}
        return {"dataset": name, "uri": path.as_uri(), "model": self.model, "recipe": recipe}

    def announce(self, name: str, *, seed: int = 0, epochs: int = 8) -> str:
        """On Kafka, as an outside producer does. The data set's name."""
        body = self.dataset(name, seed=seed, epochs=epochs)
        self.producer.send_event("dataset.ready", name, body, self.ids.new("evt"))
        return name

    def trained(self, dataset: str) -> ReceivedEvent:
        """The run's `model.trained`. Fails the test when its training failed for good."""

        def ended(event: ReceivedEvent) -> bool:
            return event.topic in ("model.trained", "training.failed") and event.body.get("dataset") == dataset

        outcome = self.log.wait(ended, f"the end of the run on {dataset}", TRAINED_SECONDS)
        assert outcome.topic == "model.trained", outcome.body
        return outcome

    def fact(self, kind: str, matches: Callable[[dict[str, Any]], bool], limit_seconds: float = MOVE_SECONDS) -> Any:
        """The payload of the registry's first fact of this kind about this model that matches."""

        def fits(event: ReceivedEvent) -> bool:
            if event.topic != "registry.history" or event.body["kind"] != kind:
                return False
            payload = event.body["payload"]
            return bool(payload.get("model") == self.model and matches(payload))

        return self.log.wait(fits, f"{kind} of {self.model}", limit_seconds).body["payload"]

    def registered(self, dataset: str) -> int:
        """The number that the data set's version got, and nothing said against it."""
        run = self.trained(dataset).body["run"]
        number = int(self.fact("version_registered", lambda outcome: outcome["trained"]["run"] == run)["version"])
        verdicts = ("version_passed", "version_refused")

        def judged(event: ReceivedEvent) -> bool:
            return (
                event.topic == "registry.history"
                and event.body["kind"] in verdicts
                and event.body["payload"].get("model") == self.model
                and event.body["payload"]["version"] == number
            )

        verdict = self.log.wait(judged, f"the verdict on version {number}", MOVE_SECONDS)
        assert verdict.body["kind"] == "version_passed", verdict.body["reason"]
        return number

    def reached(self, version: int, kind: str) -> None:
        """Returns once the version's rollout has this fact. Fails the test when it ended otherwise before."""

        def outcome(event: ReceivedEvent) -> bool:
            if event.topic != "registry.history" or event.body["payload"].get("version") != version:
                return False
            ends = {kind, "rollout_rolled_back", "rollout_paused"}
            mine = (event.body["payload"].get("model"), event.body["payload"].get("deployment"))
            return mine == (self.model, self.model) and event.body["kind"] in ends

        fact = self.log.wait(outcome, f"{kind} of version {version}", MOVE_SECONDS)
        assert fact.body["kind"] == kind, fact.body["reason"]

    def promoted(self, version: int) -> None:
        self.reached(version, "rollout_promoted")

    def traffic(self, *, seed: int, retrying: bool = False) -> Traffic:
        return Traffic(self.client, self.model, texts(4000, seed=seed), f"r{seed}", retrying=retrying)

    def champion(self) -> int:
        """The version that serves, as the control plane tells it; 0 before there is one."""
        answer = self.client.get_patiently(f"/models/{self.model}/versions/@champion")
        return int(answer.json()["number"]) if answer.is_success else 0

    def serve_first(self) -> int:
        """The version that serves; trains the first one where nothing does yet."""
        if not (version := self.champion()):
            self.promoted(version := self.registered(self.announce(f"{self.model}-first")))
        return version


@contextmanager
def playing(root: Path, *, bootstrap: str = "", **settings: str) -> Iterator[Scenario]:
    """A story on a fleet of its own."""
    with running_fleet(root, bootstrap=bootstrap, **settings) as fleet:
        kafka = fleet.state.endpoints["kafka"]
        client = Client(fleet)
        try:
            with listening(kafka) as log:
                yield Scenario(fleet, log, client, OutsideProducer(kafka))
        finally:
            client.close()


def dice_of(seed: int, name: str) -> random.Random:
    """Chance that replays: the same seed and name give the same draws."""
    print(f"seed {seed}")
    return random.Random(f"{seed}/{name}")
