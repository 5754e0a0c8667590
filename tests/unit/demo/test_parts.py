"""The demo's own parts: traffic that is counted, waiting that ends, intervals, the summary and its folder."""

import asyncio
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo.corpus import Text
from demo.errors import NotInTime
from demo.log import EventLog
from demo.statistics import mcnemar, wilson
from demo.traffic import Mix, Reply, Traffic
from services.cli import data_folder
from services.cli.consumer import ReceivedEvent
from services.cli.home import Home
from services.kit.core.clock import Clock, SystemClock, VirtualClock


def text(name: str, label: str = "data") -> Text:
    return Text(name, label, "module", "stdlib")


class FakeClient:
    """Answers `data` as version 1; texts named `broken` fail."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.labels: list[tuple[str, str]] = []

    async def classify(self, text: str) -> Reply:
        self.requests.append(text)
        await asyncio.sleep(0)
        if text == "broken":
            raise ConnectionError("gone")
        return Reply(f"request-{len(self.requests)}", 1, "data")

    async def feedback(self, request: str, label: str) -> None:
        self.labels.append((request, label))


def traffic(client: FakeClient, quiet: list[Text], clock: Clock | None = None) -> Traffic:
    return Traffic(client, Mix.of(quiet, [], seed=1), clock or SystemClock())


async def test_a_failed_request_is_counted_and_named() -> None:
    requests = traffic(FakeClient(), [])
    assert await requests.classify(text("broken"), feedback=True) is None
    assert (requests.totals.sent, requests.totals.failed, requests.totals.feedback_sent) == (1, 1, 0)
    assert requests.totals.failures == ["ConnectionError: gone"]


async def test_an_answer_is_counted_for_its_version_and_its_label_sent() -> None:
    client = FakeClient()
    requests = traffic(client, [])
    answered = await requests.classify(text("a", "files"), feedback=True)
    assert answered is not None
    assert not answered.right
    assert requests.totals.by_version == {1: 1}
    assert client.labels == [("request-1", "files")]


async def test_a_flow_sends_at_its_rate_and_ends_with_its_last_answer() -> None:
    client, clock = FakeClient(), VirtualClock()
    flow = traffic(client, [text("a"), text("b")], clock)
    async with flow.flowing():
        flow.rate = 200
        await asyncio.sleep(0)
        await clock.advance(0.25)
        flow.rate = 0
        await clock.advance(0.06)
        paused = flow.totals.sent
        await clock.advance(0.06)
        assert flow.totals.sent == paused
        ending = asyncio.create_task(clock.advance(1))
    await ending
    assert flow.totals.sent == pytest.approx(0.25 * 200, abs=1)
    assert flow.totals.sent == sum(flow.totals.by_version.values()) == len(client.labels)


def test_a_mix_goes_round_its_pools_in_order_and_keeps_its_share() -> None:
    mix = Mix.of([text("a"), text("b")], [text("x"), text("y")], seed=1)
    assert [mix.draw().text for _ in range(4)] == ["a", "b", "a", "b"]
    mix.share = 1.0
    assert [mix.draw().text for _ in range(3)] == ["x", "y", "x"]
    mix.share = 0.5
    shifted = sum(mix.draw().text in "xy" for _ in range(1000))
    assert 420 < shifted < 580


def seen(topic: str) -> ReceivedEvent:
    return ReceivedEvent(topic, "key", datetime(2026, 1, 1, tzinfo=UTC), "test", {}, {}, offset=0, partition=0)


async def test_waiting_finds_what_was_published_before_and_what_comes_later() -> None:
    log = EventLog(lambda _: None)
    log.add(seen("one"))
    assert (await log.wait(lambda event: event.topic == "one", "one", 1)).topic == "one"
    asyncio.get_running_loop().call_later(0.01, log.add, seen("two"))
    assert (await log.wait(lambda event: event.topic == "two", "two", 5, since=log.mark())).topic == "two"


async def test_waiting_in_vain_ends_and_names_what_was_waited_for() -> None:
    with pytest.raises(NotInTime, match="in vain for a miracle"):
        await EventLog(lambda _: None).wait(lambda _: False, "a miracle", 0.01)


def test_wilson_agrees_with_a_published_value() -> None:
    """81 of 263: 0.2553 to 0.3662 (R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I)."""
    low, high = wilson(81, 263)
    assert math.isclose(low, 0.2553, abs_tol=5e-5)
    assert math.isclose(high, 0.3662, abs_tol=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_is_the_sign_test_of_the_differing_rows() -> None:
    assert mcnemar(0, 0) == 1.0
    assert math.isclose(mcnemar(1, 9), 2 * (1 + 10) / 1024)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 2000) < 1e-300


def test_only_what_demos_left_is_cleared_away(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert data_folder.begin(home)
    (home.data / "registry").mkdir(parents=True)
    home.demo.joinpath("summary.json").write_text(json.dumps({}))
    assert data_folder.begin(home)
    assert not home.data.exists()
    assert home.demo.joinpath("summary.json").exists()
    home.data.mkdir()
    data_folder.belongs_to_user(home)
    assert not data_folder.begin(home)
    assert home.data.exists()
