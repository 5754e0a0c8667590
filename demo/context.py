"""What the sections act with: the running services as a client sees them, the log of events, and the audience."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from opentelemetry.trace import SpanKind

from demo.corpus import Corpus, Text, write_jsonl
from demo.errors import DemoFailed
from demo.log import EventLog
from demo.summary import Step
from demo.traffic import ClassifyClient, Traffic
from demo.view import View
from services.cli.consumer import ReceivedEvent
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids

LOOK_SECONDS: Final = 1.0


class Plane(ClassifyClient, Protocol):
    """The control plane beside the deployment's own door. Refusals raise CliError."""

    async def get(self, path: str, **query: object) -> Any: ...

    async def post(self, path: str, body: Mapping[str, Any]) -> Any: ...


class Publisher(Protocol):
    """Any program that can write to Kafka."""

    def publish(
        self,
        topic: str,
        key: str,
        body: Mapping[str, Any],
        *,
        event_id: str,
        time: datetime,
        trace: Mapping[str, str],
    ) -> None: ...


@dataclass
class DemoContext:
    """Everything that a section may use."""

    home: Path
    model: str
    endpoints: Mapping[str, str]
    key: str
    corpus: Corpus
    clock: Clock
    ids: Ids
    log: EventLog
    view: View
    client: Plane
    producer: Publisher
    traffic: Traffic
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a part of the scenario, and makes it a span of its trace."""
        started, begin = self.clock.now(), self.clock.monotonic()
        try:
            with telemetry.span(f"demo: {name}"):
                yield
        finally:
            self.steps.append(Step(name=name, started=started, seconds=self.clock.monotonic() - begin))

    def publish_data_set(self, name: str, rows: tuple[Text, ...]) -> None:
        """Writes the rows where the trainer may read, and says on Kafka that they are ready."""
        path = self.home / "demo" / f"{name}.jsonl"
        write_jsonl(rows, path)
        body = {
            "dataset": name,
            "uri": path.as_uri(),
            "format": "jsonl",
            "columns": {"text": "text", "label": "label", "split": "split"},
            "model": self.model,
        }
        with telemetry.span("send dataset.ready", kind=SpanKind.PRODUCER):
            trace = telemetry.current_carrier()
            self.producer.publish(
                "dataset.ready", name, body, event_id=self.ids.new("evt"), time=self.clock.now(), trace=trace
            )

    async def trained(
        self, matches: Callable[[ReceivedEvent], bool], since: int, limit_seconds: float
    ) -> ReceivedEvent:
        """The run's `model.trained`, with the run's progress shown meanwhile. Raises DemoFailed when it failed."""
        async with self.showing(self._run_progress):
            event = await self.log.wait(
                lambda event: (
                    event.body.get("model") == self.model
                    and (
                        (event.topic == "model.trained" and matches(event))
                        or (event.topic == "training.failed" and not event.body["retryable"])
                    )
                ),
                "model.trained",
                limit_seconds,
                since,
            )
        if event.topic == "training.failed":
            raise DemoFailed(f"training failed in {event.body['stage']}: {event.body['reason']}")
        return event

    async def fact(
        self, kind: str, what: str, limit_seconds: float, since: int = 0, **matching: object
    ) -> tuple[ReceivedEvent, dict[str, Any]]:
        """The registry's fact of this kind about this model, and its payload."""
        return await self.fact_where(
            lambda other, payload: other == kind and matching.items() <= payload.items(),
            what,
            limit_seconds,
            since,
        )

    async def fact_where(
        self, matches: Callable[[str, dict[str, Any]], bool], what: str, limit_seconds: float, since: int = 0
    ) -> tuple[ReceivedEvent, dict[str, Any]]:
        """The registry's first fact about this model whose kind and payload match."""

        def matching(event: ReceivedEvent) -> bool:
            if event.topic != "registry.history":
                return False
            payload = event.body["payload"]
            return payload.get("model") == self.model and matches(event.body["kind"], payload)

        fact = await self.log.wait(matching, what, limit_seconds, since)
        payload: dict[str, Any] = fact.body["payload"]
        return fact, payload

    async def deployment(self) -> dict[str, Any]:
        event: dict[str, Any] = await self.client.get(f"/deployments/{self.model}")
        return event

    async def version(self, number: int) -> dict[str, Any]:
        event: dict[str, Any] = await self.client.get(f"/models/{self.model}/versions/{number}")
        return event

    async def windows(self, version: int) -> list[dict[str, Any]]:
        """Of one version, the oldest first."""
        event = await self.client.get(f"/deployments/{self.model}/windows", page_size=200)
        return [window for window in reversed(event["windows"]) if window["version"] == version]

    @asynccontextmanager
    async def showing(self, line: Callable[[], Any]) -> AsyncIterator[None]:
        """While the block runs, the moving line says what `line` returns (or awaits)."""

        async def show() -> None:
            while True:
                self.view.progress(str(await line()))
                await self.clock.sleep(LOOK_SECONDS)

        task = asyncio.create_task(show())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def traffic_line(self) -> str:
        totals = self.traffic.totals
        versions = ", ".join(f"v{version} {count}" for version, count in sorted(totals.by_version.items()))
        return f"{totals.sent} requests, {totals.failed} failed ({versions}); {totals.feedback_sent} labels sent"

    async def _run_progress(self) -> str:
        runs = (await self.client.get("/runs", model=self.model))["runs"]
        latest = max(runs, key=lambda run: run.get("created_at", ""), default=None)
        if latest is None:
            return "waiting for the trainer"
        attempt = f", attempt {latest['attempt']}" if latest["attempt"] > 1 else ""
        sent = f"; {await self.traffic_line()}" if self.traffic.totals.sent else ""
        return f"{latest['run']} {latest['status']} {latest['progress']:.0%}{attempt}{sent}"
