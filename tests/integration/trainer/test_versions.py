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
from services.trainer.handlers import attempts, lookup, runs
from tests.integration.trainer.service import DATASET, TrainerFixture, opened

FIRST, SECOND = "1" * 64, "2" * 64
REFUSED = Failure(stage=Stage.PREPARE, code="bad_row", reason="Row 3 cannot be read", row=3, retryable=False)


@pytest.fixture
async def trainer(database_url: str, tmp_path: Path) -> AsyncIterator[TrainerFixture]:
    async with opened(database_url, tmp_path) as made:
        yield made


def content(digit: str, rows: int | None = 240) -> DataContent:
    return DataContent(sha256=digit * 64, size_bytes=1000, rows=rows)


async def announce(trainer: TrainerFixture, digit: str = "", **changes: Any) -> None:
    event = DATASET.model_copy(update={"content_hash": digit * 64 if digit else None, **changes})
    await runs.on_dataset_ready(trainer.envelope(event), trainer.ports)


def start(**changes: Any) -> StartRun:
    return StartRun(**{"tenant": "default", "dataset": "topics-1", "actor": "operator:1", "reason": "again", **changes})


def key(name: str, requests: str = "") -> IdempotencyKey:
    made = bind_key("default", name, b"StartRun", requests.encode())
    assert made is not None
    return made


async def hashes(trainer: TrainerFixture, **page: Any) -> list[str]:
    matches = await lookup.list_versions("default", "topics-1", trainer.ports, **{"after": "", "limit": 9, **page})
    return [version.content_hash[0] for version in matches]


async def test_an_announced_content_is_a_version_at_once_and_a_run_adds_what_it_read(trainer: TrainerFixture) -> None:
    await announce(trainer, "1")
    dataset, version = await lookup.get_dataset("default", "topics-1", trainer.ports)
    assert (dataset.content_hash, version and version.size_bytes) == (FIRST, None)
    trainer.executor.content = content("1")
    await trainer.work()
    _, read = await lookup.get_dataset("default", "topics-1", trainer.ports)
    assert read is not None
    assert (read.size_bytes, read.rows, read.latest_run) == (1000, 240, dataset.latest_run)
    assert trainer.executor.specs[0].content_hash == FIRST


async def test_without_an_announced_content_the_run_that_read_it_makes_the_version(trainer: TrainerFixture) -> None:
    await announce(trainer)
    assert await hashes(trainer) == []
    trainer.executor.content = content("1")
    await trainer.work()
    dataset, version = await lookup.get_dataset("default", "topics-1", trainer.ports)
    assert version is not None
    assert (dataset.content_hash, version.content_hash, version.rows) == (FIRST, FIRST, 240)
    assert (await lookup.get_run("default", dataset.latest_run, trainer.ports)).content_hash == FIRST
    await trainer.clock.advance(1)
    await announce(trainer)
    assert (await lookup.get_dataset("default", "topics-1", trainer.ports))[0].content_hash is None
    trainer.executor.content = content("2")
    await trainer.work()
    assert await hashes(trainer) == ["2", "1"]


async def test_a_file_with_a_bad_row_is_a_version_too(trainer: TrainerFixture) -> None:
    trainer.executor.content, trainer.executor.endings = content("1", rows=None), [REFUSED]
    await announce(trainer)
    await trainer.work()
    _, version = await lookup.get_dataset("default", "topics-1", trainer.ports)
    assert version is not None
    assert (version.size_bytes, version.rows) == (1000, None)


async def test_versions_come_in_pages_that_hold_still_while_others_are_added(trainer: TrainerFixture) -> None:
    for digit in "123":
        await announce(trainer, digit)
        await trainer.clock.advance(1)
    assert await hashes(trainer, limit=2) == ["3", "2"]
    await announce(trainer, "4")
    await announce(trainer, "2")  # once more: it keeps its place
    assert await hashes(trainer, after=SECOND) == ["1"]
    assert await hashes(trainer) == ["4", "3", "2", "1"]
    with pytest.raises(UnknownPage):
        await hashes(trainer, after="9" * 64)


async def test_a_version_is_found_by_the_beginning_of_its_hash(trainer: TrainerFixture) -> None:
    for content_hash in ("a" * 63 + "b", "a" * 64, "c" * 64):
        await announce(trainer, content_hash=content_hash)
    matches = await lookup.get_version("default", "topics-1", "c" * 8, trainer.ports)
    assert matches.content_hash == "c" * 64
    for beginning, error in (
        ("a" * 8, AmbiguousVersion),
        ("d" * 8, UnknownVersion),
        ("c" * 7, BadContentHash),
        ("c" * 65, BadContentHash),
        ("C" * 8, BadContentHash),
        ("%" * 8, BadContentHash),
        ("", BadContentHash),
    ):
        with pytest.raises(error):
            await lookup.get_version("default", "topics-1", beginning, trainer.ports)
    with pytest.raises(UnknownDataset):
        await lookup.get_version("default", "nothing", "c" * 8, trainer.ports)
    with pytest.raises(UnknownDataset):
        await lookup.list_versions("other", "topics-1", trainer.ports, after="", limit=9)


async def test_somebody_starts_a_run_on_the_data_set_as_it_was_last_announced(trainer: TrainerFixture) -> None:
    await announce(trainer, "1")
    await trainer.work()
    run = await runs.start_run(start(recipe={"epochs": 7}, deploy=False, model="other"), None, trainer.ports)
    assert (run.status, run.started_by, run.start_reason) == (RunStatus.QUEUED, "operator:1", "again")
    assert (run.model, run.content_hash, run.deploy, run.recipe and run.recipe.epochs) == ("other", FIRST, False, 7)
    await trainer.work()
    spec = trainer.executor.specs[-1]
    assert (spec.content_hash, spec.recipe.epochs, spec.model) == (FIRST, 7, "other")
    trained = (await trainer.events())[-1].event
    assert isinstance(trained, ModelTrained)
    assert (trained.deploy, trained.model) == (False, "other")
    dataset, _ = await lookup.get_dataset("default", "topics-1", trainer.ports)
    assert dataset.latest_run == run.id
    assert dataset.announced.deploy


async def test_a_run_on_an_older_version_reads_that_one(trainer: TrainerFixture) -> None:
    await announce(trainer, "1", uri="file:///data/first.csv", format="csv")
    await trainer.clock.advance(1)
    await announce(trainer, "2")
    for _ in range(2):
        await trainer.work()
    run = await runs.start_run(start(content_hash="1" * 10), None, trainer.ports)
    await trainer.work()
    spec = trainer.executor.specs[-1]
    assert (spec.data_uri, spec.format, spec.content_hash) == ("file:///data/first.csv", "csv", FIRST)
    assert (await lookup.get_version("default", "topics-1", FIRST, trainer.ports)).latest_run == run.id
    dataset, version = await lookup.get_dataset("default", "topics-1", trainer.ports)
    assert version is not None
    assert dataset.content_hash == SECOND
    assert version.latest_run != run.id


async def test_a_content_that_was_not_announced_is_pinned_by_a_run_on_its_version(trainer: TrainerFixture) -> None:
    trainer.executor.content = content("1")
    await announce(trainer)
    await trainer.work()
    await runs.start_run(start(content_hash=FIRST), None, trainer.ports)
    await trainer.work()
    assert trainer.executor.specs[-1].content_hash == FIRST


@pytest.mark.parametrize(
    ("changes", "error", "field"),
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
    trainer: TrainerFixture, changes: dict[str, Any], error: type[Exception], field: str | None
) -> None:
    await announce(trainer, "1")
    await trainer.work()
    with pytest.raises(error) as refused:
        await runs.start_run(start(**changes), key("key"), trainer.ports)
    assert getattr(refused.value, "field", None) == field
    assert not await trainer.work()
    await runs.start_run(start(), key("key"), trainer.ports)  # a refused request leaves its key unused


async def test_one_key_starts_one_run_and_cancels_once(trainer: TrainerFixture) -> None:
    await announce(trainer, "1")
    await trainer.work()
    first = await runs.start_run(start(), key("key"), trainer.ports)
    assert (await runs.start_run(start(), key("key"), trainer.ports)).id == first.id
    with pytest.raises(KeyReused):
        await runs.start_run(start(model="other"), key("key", "other"), trainer.ports)
    assert (await runs.start_run(start(), None, trainer.ports)).id != first.id
    for _ in range(2):
        cancelled = await attempts.cancel_run(
            "default", first.id, trainer.ports, actor="operator:1", reason="enough", idempotency_key=key("cancel")
        )
        assert (cancelled.status, cancelled.cancelled_by, cancelled.cancel_reason) == (
            RunStatus.CANCELLED, "operator:1", "enough",
        )  # fmt: skip
    with pytest.raises(UnknownRun):
        await attempts.cancel_run(
            "default", "run-9", trainer.ports, actor="a", reason="b", idempotency_key=key("other")
        )


async def test_runs_are_found_by_model_status_data_set_and_time(trainer: TrainerFixture) -> None:
    await announce(trainer, "1")
    await trainer.work()
    await trainer.clock.advance(60)
    later = trainer.clock.now()
    event = DatasetReady(dataset="others", uri="file:///x", model="other")
    await runs.on_dataset_ready(trainer.envelope(event), trainer.ports)

    async def matches(**expected: Any) -> list[str]:
        runs = await lookup.list_runs("default", trainer.ports, RunFilter(**expected), before="", limit=9)
        return [run.dataset for run in runs]

    assert await matches() == ["others", "topics-1"]
    assert await matches(dataset="topics-1") == ["topics-1"]
    assert await matches(since=later) == ["others"]
    assert await matches(status="queued") == ["others"]
    assert await matches(model="topics", since=later) == []


async def test_the_tables_are_those_of_the_code(trainer: TrainerFixture) -> None:
    async with trainer.store.database.write() as session:
        connection = await session.connection()
        await connection.run_sync(check, MIGRATIONS)
