"""A data set's versions, and runs that somebody starts on one of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.contracts.events import DatasetReady, ModelTrained
from services.kit.core.idempotency import IdempotencyKey, KeyReused, bind_key
from services.kit.persistence.sql.migrate import check
from services.trainer.app import MIGRATIONS
from services.trainer.domain.datasets import StartRun
from services.trainer.domain.runs import RunFilter, RunStatus
from services.trainer.domain.spec import DataContent, Failure, Stage
from services.trainer.errors import (
    AmbiguousVersion,
    BadContentHash,
    BadModelName,
    BadRecipe,
    UnknownDataset,
    UnknownPage,
    UnknownRun,
    UnknownVersion,
)
from services.trainer.handlers import asking, running, showing
from tests.integration.trainer.room import DATASET, Room, opened

FIRST, SECOND = "1" * 64, "2" * 64
REFUSED = Failure(stage=Stage.PREPARE, code="bad_row", reason="Row 3 cannot be read", row=3, retryable=False)


@pytest.fixture
async def room(database_url: str, tmp_path: Path) -> AsyncIterator[Room]:
    async with opened(database_url, tmp_path) as made:
        yield made


def content(digit: str, rows: int | None = 240) -> DataContent:
    return DataContent(sha256=digit * 64, size_bytes=1000, rows=rows)


async def announce(room: Room, digit: str = "", **changes: Any) -> None:
    event = DATASET.model_copy(update={"content_hash": digit * 64 if digit else None, **changes})
    await asking.take_dataset(room.envelope(event), room.ports)


def start(**changes: Any) -> StartRun:
    return StartRun(**{"tenant": "default", "dataset": "topics-1", "actor": "operator:1", "reason": "again", **changes})


def key(name: str, asked: str = "") -> IdempotencyKey:
    made = bind_key("default", name, b"StartRun", asked.encode())
    assert made is not None
    return made


async def hashes(room: Room, **page: Any) -> list[str]:
    found = await showing.list_versions("default", "topics-1", room.ports, **{"after": "", "limit": 9, **page})
    return [version.content_hash[0] for version in found]


async def test_an_announced_content_is_a_version_at_once_and_a_run_adds_what_it_read(room: Room) -> None:
    await announce(room, "1")
    dataset, version = await showing.get_dataset("default", "topics-1", room.ports)
    assert (dataset.content_hash, version and version.size_bytes) == (FIRST, None)
    room.executor.content = content("1")
    await room.work()
    _, read = await showing.get_dataset("default", "topics-1", room.ports)
    assert read is not None
    assert (read.size_bytes, read.rows, read.latest_run) == (1000, 240, dataset.latest_run)
    assert room.executor.specs[0].content_hash == FIRST


async def test_without_an_announced_content_the_run_that_read_it_makes_the_version(room: Room) -> None:
    await announce(room)
    assert await hashes(room) == []
    room.executor.content = content("1")
    await room.work()
    dataset, version = await showing.get_dataset("default", "topics-1", room.ports)
    assert version is not None
    assert (dataset.content_hash, version.content_hash, version.rows) == (FIRST, FIRST, 240)
    assert (await showing.get_run("default", dataset.latest_run, room.ports)).content_hash == FIRST
    await room.clock.advance(1)
    await announce(room)
    assert (await showing.get_dataset("default", "topics-1", room.ports))[0].content_hash is None
    room.executor.content = content("2")
    await room.work()
    assert await hashes(room) == ["2", "1"]


async def test_a_file_with_a_bad_row_is_a_version_too(room: Room) -> None:
    room.executor.content, room.executor.endings = content("1", rows=None), [REFUSED]
    await announce(room)
    await room.work()
    _, version = await showing.get_dataset("default", "topics-1", room.ports)
    assert version is not None
    assert (version.size_bytes, version.rows) == (1000, None)


async def test_versions_come_in_pages_that_hold_still_while_others_are_added(room: Room) -> None:
    for digit in "123":
        await announce(room, digit)
        await room.clock.advance(1)
    assert await hashes(room, limit=2) == ["3", "2"]
    await announce(room, "4")
    await announce(room, "2")  # once more: it keeps its place
    assert await hashes(room, after=SECOND) == ["1"]
    assert await hashes(room) == ["4", "3", "2", "1"]
    with pytest.raises(UnknownPage):
        await hashes(room, after="9" * 64)


async def test_a_version_is_found_by_the_beginning_of_its_hash(room: Room) -> None:
    for content_hash in ("a" * 63 + "b", "a" * 64, "c" * 64):
        await announce(room, content_hash=content_hash)
    found = await showing.get_version("default", "topics-1", "c" * 8, room.ports)
    assert found.content_hash == "c" * 64
    for beginning, refusal in (
        ("a" * 8, AmbiguousVersion),
        ("d" * 8, UnknownVersion),
        ("c" * 7, BadContentHash),
        ("c" * 65, BadContentHash),
        ("C" * 8, BadContentHash),
        ("%" * 8, BadContentHash),
        ("", BadContentHash),
    ):
        with pytest.raises(refusal):
            await showing.get_version("default", "topics-1", beginning, room.ports)
    with pytest.raises(UnknownDataset):
        await showing.get_version("default", "nothing", "c" * 8, room.ports)
    with pytest.raises(UnknownDataset):
        await showing.list_versions("other", "topics-1", room.ports, after="", limit=9)


async def test_somebody_starts_a_run_on_the_data_set_as_it_was_last_announced(room: Room) -> None:
    await announce(room, "1")
    await room.work()
    run = await asking.start_run(start(recipe={"epochs": 7}, hold_back=True, model="other"), None, room.ports)
    assert (run.status, run.started_by, run.start_reason) == (RunStatus.QUEUED, "operator:1", "again")
    assert (run.model, run.content_hash, run.hold_back, run.recipe and run.recipe.epochs) == ("other", FIRST, True, 7)
    await room.work()
    spec = room.executor.specs[-1]
    assert (spec.content_hash, spec.recipe.epochs, spec.model) == (FIRST, 7, "other")
    trained = (await room.told())[-1].event
    assert isinstance(trained, ModelTrained)
    assert (trained.deploy, trained.model) == (False, "other")
    dataset, _ = await showing.get_dataset("default", "topics-1", room.ports)
    assert dataset.latest_run == run.id
    assert dataset.announced.deploy


async def test_a_run_on_an_older_version_reads_that_one(room: Room) -> None:
    await announce(room, "1", uri="file:///data/first.csv", format="csv")
    await room.clock.advance(1)
    await announce(room, "2")
    for _ in range(2):
        await room.work()
    run = await asking.start_run(start(content_hash="1" * 10), None, room.ports)
    await room.work()
    spec = room.executor.specs[-1]
    assert (spec.data_uri, spec.format, spec.content_hash) == ("file:///data/first.csv", "csv", FIRST)
    assert (await showing.get_version("default", "topics-1", FIRST, room.ports)).latest_run == run.id
    dataset, version = await showing.get_dataset("default", "topics-1", room.ports)
    assert version is not None
    assert dataset.content_hash == SECOND
    assert version.latest_run != run.id


async def test_a_content_that_was_not_announced_is_pinned_by_a_run_on_its_version(room: Room) -> None:
    room.executor.content = content("1")
    await announce(room)
    await room.work()
    await asking.start_run(start(content_hash=FIRST), None, room.ports)
    await room.work()
    assert room.executor.specs[-1].content_hash == FIRST


@pytest.mark.parametrize(
    ("changes", "refusal", "field"),
    [
        ({"dataset": "nothing"}, UnknownDataset, None),
        ({"tenant": "other"}, UnknownDataset, None),
        ({"content_hash": "9" * 8}, UnknownVersion, "content_hash"),
        ({"content_hash": "../../.."}, BadContentHash, "content_hash"),
        ({"model": "Not A Name"}, BadModelName, "model"),
        ({"model": "../other"}, BadModelName, "model"),
        ({"recipe": {"epohcs": 1}}, BadRecipe, "recipe_json.epohcs"),
        ({"recipe": {"epochs": 10**9}}, BadRecipe, "recipe_json.epochs"),
        ({"recipe": {"epochs": "many"}}, BadRecipe, "recipe_json.epochs"),
    ],
)
async def test_a_run_that_cannot_be_started_is_refused_and_queues_nothing(
    room: Room, changes: dict[str, Any], refusal: type[Exception], field: str | None
) -> None:
    await announce(room, "1")
    await room.work()
    with pytest.raises(refusal) as refused:
        await asking.start_run(start(**changes), key("key"), room.ports)
    assert getattr(refused.value, "at", None) == field
    assert not await room.work()
    await asking.start_run(start(), key("key"), room.ports)  # a refused request leaves its key unused


async def test_one_key_starts_one_run_and_cancels_once(room: Room) -> None:
    await announce(room, "1")
    await room.work()
    first = await asking.start_run(start(), key("key"), room.ports)
    assert (await asking.start_run(start(), key("key"), room.ports)).id == first.id
    with pytest.raises(KeyReused):
        await asking.start_run(start(model="other"), key("key", "other"), room.ports)
    assert (await asking.start_run(start(), None, room.ports)).id != first.id
    for _ in range(2):
        cancelled = await running.cancel_run(
            "default", first.id, room.ports, actor="operator:1", reason="enough", asked=key("cancel")
        )
        assert (cancelled.status, cancelled.cancelled_by, cancelled.cancel_reason) == (
            RunStatus.CANCELLED, "operator:1", "enough",
        )  # fmt: skip
    with pytest.raises(UnknownRun):
        await running.cancel_run("default", "run-9", room.ports, actor="a", reason="b", asked=key("other"))


async def test_runs_are_found_by_model_status_data_set_and_time(room: Room) -> None:
    await announce(room, "1")
    await room.work()
    await room.clock.advance(60)
    later = room.clock.now()
    event = DatasetReady(dataset="others", uri="file:///x", model="other")
    await asking.take_dataset(room.envelope(event), room.ports)

    async def found(**wanted: Any) -> list[str]:
        runs = await showing.list_runs("default", room.ports, RunFilter(**wanted), before="", limit=9)
        return [run.dataset for run in runs]

    assert await found() == ["others", "topics-1"]
    assert await found(dataset="topics-1") == ["topics-1"]
    assert await found(since=later) == ["others"]
    assert await found(status="queued") == ["others"]
    assert await found(model="topics", since=later) == []


async def test_the_tables_are_those_of_the_code(room: Room) -> None:
    async with room.store.database.write() as session:
        connection = await session.connection()
        await connection.run_sync(check, MIGRATIONS)
