"""The house: five rooms on one ground, driven step by step until nothing is left to do, then to the next moment.

There is one driver; whatever runs beside it (a run that trains, a version that loads, the replica's reports) sleeps on
the virtual clock, and is let run only between the driver's steps. So the same seed gives the same story.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from services.contracts.errors import MillraceError
from services.contracts.events import FeedbackReceived
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest
from services.gateway import handlers as gateway
from services.gateway.domain.requests import Caller, Predict
from services.kit.messaging.envelope import Message
from tests.e2e.virtual import services
from tests.e2e.virtual.corpus import Text
from tests.e2e.virtual.environment import MODEL, TENANT, Environment
from tests.e2e.virtual.faults import Killed
from tests.e2e.virtual.service import ServiceUnderTest

T = TypeVar("T")

CALM_TURNS: Final = 12
"""So many turns of the event loop with nothing in another thread, and whoever could run has run."""
RESTLESS_TURNS: Final = 500
WORKER_SECONDS: Final = 3.0


@dataclass(frozen=True)
class ClassifiedText:
    """A request as its client saw it."""

    request: str
    text: Text
    version: int
    label: str


class ServiceGroup:
    """A room's consumers on the broker, whoever runs the room at the moment."""

    def __init__(self, platform: "Platform", name: str) -> None:
        self._platform = platform
        self._name = name

    @property
    def topics(self) -> list[str]:
        return self._platform.service(self._name).topics

    async def deliver(self, message: Message) -> None:
        await self._platform.surely(self._name, lambda service: service.deliver(message))


class Platform:
    """`open` before use, `close` after; between the two it is driven by one task."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.answered: list[ClassifiedText] = []
        self.failed: list[str] = []
        """Requests that a client got no answer to, and why."""
        self.restarts: list[str] = []
        self._working: asyncio.Task[bool] | None = None
        self._worker_looked_at = float("-inf")

    async def open(self) -> None:
        self.environment.clock.driver = asyncio.current_task()
        self.gateway = await services.build_gateway(self.environment)
        self.trainer = await services.build_trainer(self.environment, lambda: self.registry.ports)
        self.registry = await services.build_registry(self.environment)
        self.inference = services.build_inference(self.environment)
        self.monitor = await services.build_monitor(self.environment)
        self.environment.bus.join([ServiceGroup(self, service.name) for service in self._services])
        for service in self._services:
            await self.surely(service.name, lambda service: service.open())
        await self.settle()

    async def close(self) -> None:
        await self._stop_working()
        for service in self._services:
            await service.close()
            if service.database is not None:
                await service.database.close()

    @property
    def _services(self) -> list[ServiceUnderTest]:
        """In the order in which they are driven."""
        homes = (self.gateway, self.trainer, self.registry, self.inference, self.monitor)
        return [home.service for home in homes]

    def service(self, name: str) -> ServiceUnderTest:
        return next(service for service in self._services if service.name == name)

    # --- what is asked of it

    async def classify(self, text: Text) -> ClassifiedText | None:
        """One request of a client; None when it failed."""
        request = f"req-{len(self.answered) + len(self.failed) + 1}"
        deadline = self.environment.clock.monotonic() + 30.0
        try:
            command = Predict(TENANT, MODEL, CLASSIFICATION, ClassificationRequest((text.body,)), request, deadline)
            answer = await gateway.answer(command, self.gateway.ports)
        except MillraceError as error:
            self.failed.append(f"{request}: {error}")
            return None
        await self.gateway.mirrors.classify_all()
        answered = ClassifiedText(request, text, answer.version, answer.result().predictions[0].label)
        self.answered.append(answered)
        return answered

    async def label(self, answered: ClassifiedText) -> None:
        """Tells the right label; a client that got no answer tells it again with the same key."""
        event = FeedbackReceived(deployment=MODEL, request=answered.request, label=answered.text.label)
        caller = Caller(TENANT, idempotency_key=f"label-{answered.request}")
        await self.surely("gateway", lambda _: gateway.send_feedback(event, caller, self.gateway.ports))

    async def say(self, message: Message) -> None:
        """A producer outside puts a message on the bus."""
        await self.environment.bus.send([message])
        await self.settle()

    # --- how it moves

    async def settle(self) -> None:
        """Returns once nothing is pending: nothing unsent, undelivered or due."""
        for _ in range(RESTLESS_TURNS):
            await self._quiet()
            if not await self._next():
                return
        raise AssertionError("the house does not come to rest")

    async def advance(self, seconds: float) -> None:
        """Lets time pass, from one due moment to the next."""
        end = self.environment.clock.now() + timedelta(seconds=seconds)
        await self.settle()
        while (left := (end - self.environment.clock.now()).total_seconds()) > 0:
            await self._move(left)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, limit_seconds: float = 600.0) -> None:
        """Lets time pass until the condition holds. Fails, naming `what`, after the limit of virtual time."""
        end = self.environment.clock.now() + timedelta(seconds=limit_seconds)
        await self.settle()
        while not await condition():
            assert self.environment.clock.now() < end, f"not within {limit_seconds:g} s: {what}"
            await self._move(limit_seconds)

    async def surely(self, name: str, step: Callable[[ServiceUnderTest], Awaitable[T]]) -> T:
        """The outcome of the step; a room that is killed in it is started again, and does it again."""
        while True:
            try:
                return await step(self.service(name))
            except Killed:
                await self.restart(name)

    async def restart(self, name: str) -> None:
        """The room's process ends as it is, and another begins with what its database and the bus remember."""
        while True:
            self.restarts.append(name)
            old = self.service(name)
            if name == "trainer":
                await self._stop_working()
            await old.close()
            if old.database is not None:
                await old.database.close()
            try:
                await self._build(name)
                await self.service(name).open()
                break
            except Killed:
                continue
        if name in ("gateway", "inference"):  # they follow compacted topics from the beginning
            fresh = self.service(name)
            for message in self.environment.bus.latest(fresh.topics):
                await fresh.deliver(message)

    async def _build(self, name: str) -> None:
        match name:
            case "gateway":
                self.gateway = await services.build_gateway(self.environment)
            case "trainer":
                self.trainer = await services.build_trainer(self.environment, lambda: self.registry.ports)
            case "registry":
                self.registry = await services.build_registry(self.environment)
            case "inference":
                self.inference = services.build_inference(self.environment)
            case "monitor":
                self.monitor = await services.build_monitor(self.environment)

    async def _move(self, limit: float) -> None:
        """To the next moment at which something is due, at most `limit` seconds away."""
        # Answers that wait in memory are lost in a kill, as they may be; the story is compared, so it wants them all.
        if not self.inference.log.waiting and self.environment.faults.strikes("inference", "between two requests"):
            await self.restart("inference")
            await self.settle()
        now = self.environment.clock.now()
        waits = [(service.next_due - now).total_seconds() for service in self._services if service.next_due is not None]
        if (sleeper := self.environment.clock.seconds_to_next_sleeper()) is not None:
            waits.append(sleeper)
        ahead = [wait for wait in waits if wait > 0]
        await self.environment.clock.advance(max(1e-6, min([limit, *ahead])))
        await self.settle()

    async def _next(self) -> int:
        """Each room sends, hears, and handles what is due, in a fixed order; how much there was to do."""
        moved = 0
        for service in self._services:
            moved += await self.surely(service.name, lambda service: service.run_scenario())
        moved += await self.environment.bus.deliver_all()
        now = self.environment.clock.now()
        for service in self._services:
            moved += await self.surely(service.name, lambda service: service.handle_due(now))
        moved += await self._work()
        for service in self._services:
            if service.is_dead:  # killed in what it did beside the driver
                await self.restart(service.name)
                moved += 1
        return moved + sum(
            service.database is not None and service.database.committed.is_set() for service in self._services
        )

    # --- what goes on beside the driver

    async def _quiet(self) -> None:
        """Returns once everything beside the driver has ended or sleeps."""
        calm = 0
        while calm < CALM_TURNS:
            busy = any(service.database is not None and service.database.busy for service in self._services)
            calm = 0 if busy else calm + 1
            await asyncio.sleep(0)

    async def _work(self) -> int:
        """Lets the trainer's worker look for a job, and collects the one that it has ended."""
        now, worker = self.environment.clock.monotonic(), self.trainer.worker
        if self._working is None and (worker.wake.is_set() or now - self._worker_looked_at >= WORKER_SECONDS):
            worker.wake.clear()
            self._worker_looked_at = now
            self._working = asyncio.ensure_future(worker.run_one())
            await self._quiet()
        if self._working is None or not self._working.done():
            return 0
        ended, self._working = self._working, None
        with suppress(Killed):
            return int(ended.result())
        return 0

    async def _stop_working(self) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)
            self._working = None
