"""Clients are stopped within a limit, and none that was given up keeps its connections."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from services.kit.messaging.consumer_loop import Stops


class Client:
    """One that waits for its broker before it stops, as aiokafka does while it joins a group."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.stopped = False
        self.cuts = 0

    async def stop(self) -> None:
        await self.answered.wait()
        self.stopped = True

    async def disconnect(self) -> None:
        self.cuts += 1


async def test_a_client_that_stops_in_time_is_not_cut() -> None:
    client, stops = Client(), Stops()
    client.answered.set()
    await stops.stop(client.stop, client.disconnect)
    await stops.cancel()
    assert (client.stopped, client.cuts) == (True, 0)


async def test_a_client_that_is_given_up_keeps_no_connection() -> None:
    client, stops = Client(), Stops(limit_seconds=0.01)
    await stops.stop(client.stop, client.disconnect)
    assert client.cuts == 0, "it goes on stopping beside its successor"
    await stops.cancel()
    assert (client.stopped, client.cuts) == (False, 1)


async def test_a_client_that_stopped_late_is_not_cut() -> None:
    client, stops = Client(), Stops(limit_seconds=0.01)
    await stops.stop(client.stop, client.disconnect)
    client.answered.set()
    for _ in range(3):
        await asyncio.sleep(0)
    await stops.cancel()
    assert (client.stopped, client.cuts) == (True, 0)


async def test_a_stop_that_is_cancelled_leaves_the_client_to_be_cut() -> None:
    client, stops = Client(), Stops()
    stopping = asyncio.create_task(stops.stop(client.stop, client.disconnect))
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    await stops.cancel()
    assert client.cuts == 1


async def test_one_broken_connection_keeps_no_other_open() -> None:
    broken, client, stops = Client(), Client(), Stops(limit_seconds=0.01)

    async def breaks() -> None:
        raise OSError

    await stops.stop(broken.stop, breaks)
    await stops.stop(client.stop, client.disconnect)
    await stops.cancel()
    assert client.cuts == 1


async def test_each_error_of_a_group_is_logged_and_none_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    """FastStream raises what its subscribers raised as one group."""

    async def stop() -> None:
        raise ExceptionGroup("Failed to stop subscribers", [OSError("reset"), KafkaConnectionError("gone")])

    client, stops = Client(), Stops()
    await stops.stop(stop, client.disconnect)
    await stops.cancel()
    assert client.cuts == 0
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == ["reset", "gone"]


async def test_an_error_that_is_no_lost_broker_is_reported_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def stop() -> None:
        raise ExceptionGroup("Failed to stop subscribers", [OSError("reset"), ValueError("a mistake")])

    client, stops = Client(), Stops()
    await stops.stop(stop, client.disconnect)
    await stops.cancel()
    [error] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.exc_info is not None
    assert isinstance(error.exc_info[1], ExceptionGroup)
    assert [str(one) for one in error.exc_info[1].exceptions] == ["a mistake"]
