"""The trainer's use cases on its real store: every fact is kept and told once, whatever comes twice or breaks."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.contracts.errors import Unavailable
from services.contracts.events import DatasetReady, FeedbackReceived, ModelTrained, TrainingFailed
from services.kit.persistence.sql.history import verified
from services.kit.persistence.sql.tables import JobRow
from services.kit.persistence.sql.unit_of_work import columns
from services.trainer.domain.runs import RunFilter, RunStatus
from services.trainer.domain.spec import Failure, Stage
from services.trainer.errors import RunHasEnded, UnknownDataset, UnknownRun
from services.trainer.handlers import attempts, lookup, runs, traffic
from tests.integration.trainer.service import ARTIFACT, CHAMPION, DATASET, KILLED, TrainerFixture, opened, topics


@pytest.fixture
async def trainer(database_url: str, tmp_path: Path) -> AsyncIterator[TrainerFixture]:
    async with opened(database_url, tmp_path) as made:
        yield made


async def only_run(trainer: TrainerFixture) -> str:
    runs = await lookup.list_runs("default", trainer.ports, RunFilter(), before="", limit=10)
    assert len(runs) == 1
    return runs[0].id


async def test_a_data_set_becomes_a_run_and_the_run_a_trained_model(trainer: TrainerFixture) -> None:
    await runs.on_dataset_ready(trainer.envelope(DATASET, name="evt-dataset"), trainer.ports)
    assert await trainer.work()
    events = await trainer.events()
    assert topics(events) == ["model.trained"]
    trained = events[0].event
    assert isinstance(trained, ModelTrained)
    run = await lookup.get_run("default", trained.run, trainer.ports)
    assert (run.status, run.artifact, trained.artifact) == (RunStatus.SUCCEEDED, ARTIFACT, ARTIFACT)
    assert (events[0].causation, events[0].correlation) == ("evt-dataset", "story-1")
    assert (await lookup.get_dataset("default", "topics-1", trainer.ports))[0].latest_run == trained.run


async def test_the_same_event_twice_is_one_run_and_the_same_job_twice_one_model(trainer: TrainerFixture) -> None:
    for _ in range(2):
        await runs.on_dataset_ready(trainer.envelope(DATASET, name="evt-dataset"), trainer.ports)
    assert [await trainer.work(), await trainer.work()] == [True, False]
    assert topics(await trainer.events()) == ["model.trained"]


async def test_the_history_of_a_run_is_a_chain_of_its_facts(trainer: TrainerFixture) -> None:
    trainer.executor.endings = [KILLED]
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    await trainer.tick(10)
    await trainer.work()
    async with trainer.store.reading() as tx:
        kinds = [entry.kind async for entry in verified(tx)]
    attempt = ["AttemptStarted", "StageBegun", "StageBegun", "StageBegun", "StageBegun"]
    assert kinds == ["RunQueued", "SpecFixed", *attempt, "RunPutBack", *attempt, "RunSucceeded"]


async def test_a_killed_run_is_tried_again_after_a_pause_and_then_given_up(trainer: TrainerFixture) -> None:
    trainer.executor.endings = [KILLED] * 3
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    worked = 0
    for _ in range(60):
        worked += await trainer.work()
        await trainer.tick(1)
    assert worked == 3
    assert [made.handle.attempt for made in trainer.executor.started.values()] == [1, 2, 3]
    failed = (await trainer.events())[0].event
    assert isinstance(failed, TrainingFailed)
    assert (failed.code, failed.stage, failed.retryable) == ("killed", "train", True)


async def test_data_that_cannot_be_trained_on_fails_at_once_with_its_row(trainer: TrainerFixture) -> None:
    refused = Failure(stage=Stage.PREPARE, code="one_class", reason="All rows carry one label", row=1, retryable=False)
    trainer.executor.endings = [refused]
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    failed = (await trainer.events())[0].event
    assert isinstance(failed, TrainingFailed)
    assert (failed.code, failed.row, failed.retryable) == ("one_class", 1, False)
    assert not await trainer.work()


async def test_a_cancelled_run_tells_nothing_and_cannot_be_cancelled_twice(trainer: TrainerFixture) -> None:
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    run = await only_run(trainer)
    cancelled = await attempts.cancel_run("default", run, trainer.ports, actor="admin:1", reason="not needed")
    assert cancelled.status is RunStatus.CANCELLED
    assert not await trainer.work()
    assert await trainer.events() == []
    with pytest.raises(RunHasEnded):
        await attempts.cancel_run("default", run, trainer.ports, actor="admin:1", reason="again")


async def test_cancelling_a_run_that_is_being_worked_ends_what_executes_it(trainer: TrainerFixture) -> None:
    async def cancel() -> None:
        trainer.executor.polled = None
        run = await only_run(trainer)
        await attempts.cancel_run("default", run, trainer.ports, actor="admin:1", reason="not needed")

    trainer.executor.polled = cancel
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    run = await lookup.get_run("default", await only_run(trainer), trainer.ports)
    assert (run.status, run.executing) == (RunStatus.CANCELLED, False)
    assert await trainer.events() == []
    await trainer.tick()
    assert trainer.executor.cancelled == [f"{run.id}.1"]
    await trainer.tick(5)
    assert trainer.executor.cancelled == [f"{run.id}.1"]


async def test_a_worker_that_lost_its_lease_tells_nothing_and_the_next_one_follows_the_same_attempt(
    trainer: TrainerFixture,
) -> None:
    async def overtaken() -> None:  # it was silent for so long that another worker took the job
        trainer.executor.polled = None
        async with trainer.store.transaction() as tx:
            table = columns(JobRow)
            await tx.execute(sa.update(table).values(fence=5, state="waiting"))

    trainer.executor.polled = overtaken
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    assert await trainer.events() == []
    await trainer.clock.advance(11)
    await trainer.work()
    assert topics(await trainer.events()) == ["model.trained"]
    assert (list(trainer.executor.started), trainer.executor.cancelled) == ([f"{await only_run(trainer)}.1"], [])


async def test_while_the_registry_is_away_the_run_waits(trainer: TrainerFixture) -> None:
    trainer.champions.away = Unavailable(what="the registry")
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    assert (await lookup.get_run("default", await only_run(trainer), trainer.ports)).status is RunStatus.QUEUED
    trainer.champions.away = None
    await trainer.tick(11)
    await trainer.work()
    assert topics(await trainer.events()) == ["model.trained"]


async def test_a_drift_waits_for_labels_and_then_learns_from_them(trainer: TrainerFixture) -> None:
    trainer.champions.current = CHAMPION
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    await trainer.traffic(labelled=20)  # long before: of the old kind
    await trainer.clock.advance(600)
    await runs.on_drift_detected(trainer.envelope(trainer.drift(), name="evt-drift"), trainer.ports)
    await trainer.traffic(labelled=29, unlabelled=50, start=100)
    for _ in range(5):
        await trainer.tick(1)
    assert not await trainer.work()
    await trainer.traffic(labelled=1, start=500)
    await trainer.tick(2)
    assert await trainer.work()
    assert len(trainer.inputs.examples) == 30
    assert {example.label for example in trainer.inputs.examples} == {"b"}
    assert trainer.executor.specs[-1].champion == CHAMPION
    assert trainer.executor.specs[-1].feedback_uri is not None
    events = (await trainer.events())[-1]
    assert isinstance(events.event, ModelTrained)
    assert (events.event.parent, events.causation, events.correlation) == (1, "evt-drift", "story-1")
    await trainer.tick(5)
    assert not await trainer.work()


async def test_a_drift_delivered_twice_starts_one_run(trainer: TrainerFixture) -> None:
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    await trainer.traffic(labelled=40)
    for _ in range(2):
        await runs.on_drift_detected(trainer.envelope(trainer.drift(), name="evt-drift"), trainer.ports)
        await trainer.tick(1)
    assert [await trainer.work(), await trainer.work()] == [True, False]


async def test_a_drift_without_labels_is_left_when_the_wait_ends(trainer: TrainerFixture) -> None:
    await runs.on_dataset_ready(trainer.envelope(DATASET), trainer.ports)
    await trainer.work()
    await runs.on_drift_detected(trainer.envelope(trainer.drift()), trainer.ports)
    await trainer.tick(3601)
    await trainer.traffic(labelled=40)
    await trainer.tick(10)
    assert not await trainer.work()


async def test_a_drift_of_a_model_that_was_not_trained_here_changes_nothing(trainer: TrainerFixture) -> None:
    await runs.on_drift_detected(trainer.envelope(trainer.drift()), trainer.ports)
    await trainer.tick(2)
    assert not await trainer.work()


async def test_mirrored_failed_and_textless_requests_teach_nothing(trainer: TrainerFixture) -> None:
    await trainer.traffic(labelled=5, source="mirror")
    await trainer.traffic(labelled=5, start=10, outcome="fault")
    await trainer.traffic(labelled=5, start=20, items=[{"label": "a"}])
    await trainer.traffic(labelled=5, start=40, task="embedding")
    await trainer.traffic(labelled=5, start=30)
    async with trainer.store.reading() as tx:
        matches = await tx.labelled("default", "topics", trainer.clock.now(), trainer.clock.now(), 100)
    assert [example.text for example in matches] == [f"text {number}" for number in range(30, 35)]


async def test_a_label_may_come_before_its_text_and_the_last_one_counts(trainer: TrainerFixture) -> None:
    for label in ("x", "y"):
        published = FeedbackReceived(deployment="topics", request="req-0", label=label)
        await traffic.on_feedback_received([trainer.envelope(published)], trainer.ports)
    await trainer.traffic(labelled=0, unlabelled=1)
    async with trainer.store.reading() as tx:
        matches = await tx.labelled("default", "topics", trainer.clock.now(), trainer.clock.now(), 100)
    assert [(example.text, example.label) for example in matches] == [("text 0", "y")]


async def test_a_label_that_comes_again_late_undoes_no_correction(trainer: TrainerFixture) -> None:
    await trainer.traffic(labelled=0, unlabelled=1)
    first, corrected = (
        trainer.envelope(FeedbackReceived(deployment="topics", request="req-0", label=label)) for label in ("x", "y")
    )
    for envelope in (first, corrected, first):  # the last as a dead letter of another service, sent again
        await traffic.on_feedback_received([envelope], trainer.ports)
    async with trainer.store.reading() as tx:
        matches = await tx.labelled("default", "topics", trainer.clock.now(), trainer.clock.now(), 100)
    assert [example.label for example in matches] == ["y"]


async def test_traffic_is_stored_within_bounds(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as trainer:
        trainer.ports = replace(trainer.ports, examples_limit=50)
        for start in range(0, 200, 20):
            await trainer.traffic(labelled=20, start=start)
            await trainer.clock.advance(1)
        async with trainer.store.reading() as tx:
            since = trainer.clock.now() - timedelta(hours=1)
            matches = await tx.labelled("default", "topics", since, trainer.clock.now(), 1000)
        assert [example.text for example in matches] == [f"text {number}" for number in range(150, 200)]


async def test_tenants_see_only_what_is_theirs(trainer: TrainerFixture) -> None:
    await runs.on_dataset_ready(trainer.envelope(DATASET, tenant="other"), trainer.ports)
    with pytest.raises(UnknownDataset):
        await lookup.get_dataset("default", "topics-1", trainer.ports)
    run = (await lookup.get_dataset("other", "topics-1", trainer.ports))[0].latest_run
    with pytest.raises(UnknownRun):
        await lookup.get_run("default", run, trainer.ports)
    with pytest.raises(UnknownRun):
        await lookup.read_log("default", run, trainer.ports, after=0)


async def test_lists_come_in_pages_newest_run_first(trainer: TrainerFixture) -> None:
    for number in range(3):
        event = DatasetReady(dataset=f"set-{number}", uri="file:///x", model=f"model-{number}")
        await runs.on_dataset_ready(trainer.envelope(event), trainer.ports)
    names = [d.announced.dataset for d in await lookup.list_datasets("default", trainer.ports, after="set-0", limit=5)]
    assert names == ["set-1", "set-2"]
    queued = await lookup.list_runs("default", trainer.ports, RunFilter(status="queued"), before="", limit=2)
    assert [run.dataset for run in queued] == ["set-2", "set-1"]
    rest = await lookup.list_runs("default", trainer.ports, RunFilter(), before=queued[-1].id, limit=2)
    assert [run.dataset for run in rest] == ["set-0"]
