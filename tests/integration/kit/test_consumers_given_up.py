"""A service that ends while its consumers still join their groups leaves no connection open."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import psutil
import pytest

from services.cli.launcher.embedded import EmbeddedBroker
from services.cli.launcher.topics import load_topics
from services.contracts.events import FeedbackReceived
from services.kit.core.clock import SystemClock
from services.kit.messaging import consumer_loop
from services.kit.messaging.batch_consumer import BatchConsumer
from services.kit.messaging.producer import EventProducer
from tests.integration.kit.consumers import MessagingUnderTest
from tests.integration.kit.test_messaging import running, until

Run = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def slow_broker() -> Iterator[EmbeddedBroker]:
    """It answers everything but the joining of a group, which takes it a minute."""
    broker = EmbeddedBroker(
        [topic for topic in load_topics() if topic.name in {"feedback.received", "training.failed"}]
    )
    broker._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(broker._cluster, 60_000)
    yield broker
    broker.close()


@pytest.mark.parametrize("kind", ["subscribers", "batches"])
async def test_consumers_that_still_join_are_cut(
    kind: str, slow_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_loop.Stops.__init__, "__defaults__", (0.2,))
    messaging = MessagingUnderTest(slow_broker.bootstrap, EventProducer(slow_broker.bootstrap, "test"))
    batches = BatchConsumer(
        FeedbackReceived,
        messaging.handle_many,
        bootstrap_servers=slow_broker.bootstrap,
        service=messaging.service,
        delivery=messaging.delivery(),
        clock=SystemClock(),
    )
    run: Run = messaging.bus().run if kind == "subscribers" else batches.run
    async with running(run):
        await until(lambda: joining() and connections_to(slow_broker) > 0, "a consumer joins its group")
    assert connections_to(slow_broker) == 0


def joining() -> bool:
    return any("_coordination_routine" in repr(task.get_coro()) for task in asyncio.all_tasks())


def connections_to(broker: EmbeddedBroker) -> int:
    port = int(broker.bootstrap.rpartition(":")[2])
    connections = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == port for one in connections)
