"""A service on a broker that is given: every kind of consumer is reached by what is sent, and nothing is opened."""

from pathlib import Path
from typing import Any, ClassVar

from faststream.kafka import KafkaBroker
from pydantic_settings import SettingsConfigDict

from services.contracts.events import DeploymentChanged, DriftDetected, FeedbackReceived, InferenceRequested
from services.kit.core.clock import VirtualClock
from services.kit.core.ids import SeededIds
from services.kit.core.settings import ServiceSettings
from services.kit.messaging.envelope import Envelope, Message, encode
from services.kit.messaging.in_memory import InMemoryBroker, InMemorySubscribers
from services.kit.service import Adapters, Service
from tests.contracts.examples import EXAMPLES
from tests.wiring import SilentServers

EVENTS = {type(event): event for event in EXAMPLES}


class MillSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="MILLRACE_MILL_")
    service: ClassVar[str] = "mill"


def mill(home: Path, broker: InMemoryBroker) -> Service[None]:
    adapters = Adapters(clock=VirtualClock(), ids=SeededIds(1), broker=broker, servers=SilentServers())
    return Service(MillSettings.model_validate({"MILLRACE_HOME": home}), adapters)


def message(kind: type[Any]) -> Message:
    return encode(Envelope("e-1", EVENTS[kind], "test", VirtualClock().now()))


async def test_each_kind_of_consumer_hears_what_is_sent_on_the_broker_that_was_given(tmp_path: Path) -> None:
    broker, received = InMemoryBroker(), list[str]()
    service = mill(tmp_path, broker)

    async def keep(envelope: Envelope[Any]) -> None:
        received.append(envelope.event.topic)

    async def keep_all(envelopes: Any) -> None:
        for envelope in envelopes:
            await keep(envelope)

    def subscribe(kafka: KafkaBroker) -> None:
        kafka.subscriber("drift.detected", group_id="mill")(keep)

    service.subscribes(subscribe)
    service.consumes_batches({FeedbackReceived: keep_all})
    service.consumes_concurrently({InferenceRequested: keep}, limit=1, limit_bytes=1)
    assert service.follows("deployments", {DeploymentChanged: keep}, client="mill").is_set()
    subscribers = next(group for group in service.groups if isinstance(group, InMemorySubscribers))
    await subscribers.open()
    kinds = (DriftDetected, FeedbackReceived, InferenceRequested, DeploymentChanged)
    await service.sender.send([message(kind) for kind in kinds])
    assert await broker.deliver_all() == len(kinds)
    await subscribers.close()
    assert received == [kind.topic for kind in kinds]


async def test_a_request_that_fails_on_the_given_broker_becomes_a_dead_letter_there(tmp_path: Path) -> None:
    broker = InMemoryBroker()
    service = mill(tmp_path, broker)

    async def answer(_: Envelope[Any]) -> None:
        raise AssertionError("no request may come: it is no event")

    service.consumes_concurrently({InferenceRequested: answer}, limit=1, limit_bytes=1)
    await broker.send([Message(InferenceRequested.topic, b"k", b"not JSON")])
    await broker.deliver_all()
    assert broker.sent[-1].topic == "inference.requested.dlq"


async def test_jobs_wake_every_worker(tmp_path: Path) -> None:
    service = mill(tmp_path, InMemoryBroker())

    async def work(_: Any) -> None:
        """Nothing is worked on here."""

    store: Any = object()
    first, second = (service.works(name, store, work, kind="k", lease_seconds=1.0) for name in ("one", "two"))
    assert not first.wake.is_set()
    service.wake_workers()
    assert first.wake.is_set()
    assert second.wake.is_set()
