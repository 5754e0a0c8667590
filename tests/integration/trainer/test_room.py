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
from services.trainer.handlers import asking, running, showing, traffic
from tests.integration.trainer.room import ARTIFACT, CHAMPION, DATASET, KILLED, Room, opened, topics


@pytest.fixture
async def room(database_url: str, tmp_path: Path) -> AsyncIterator[Room]:
    async with opened(database_url, tmp_path) as made:
        yield made


async def only_run(room: Room) -> str:
    runs = await showing.list_runs("default", room.ports, RunFilter(), before="", limit=10)
    assert len(runs) == 1
    return runs[0].id


async def test_a_data_set_becomes_a_run_and_the_run_a_trained_model(room: Room) -> None:
    await asking.take_dataset(room.envelope(DATASET, name="evt-dataset"), room.ports)
    assert await room.work()
    told = await room.told()
    assert topics(told) == ["model.trained"]
    trained = told[0].event
    assert isinstance(trained, ModelTrained)
    run = await showing.get_run("default", trained.run, room.ports)
    assert (run.status, run.artifact, trained.artifact) == (RunStatus.SUCCEEDED, ARTIFACT, ARTIFACT)
    assert (told[0].causation, told[0].correlation) == ("evt-dataset", "story-1")
    assert (await showing.get_dataset("default", "topics-1", room.ports))[0].latest_run == trained.run


async def test_the_same_event_twice_is_one_run_and_the_same_job_twice_one_model(room: Room) -> None:
    for _ in range(2):
        await asking.take_dataset(room.envelope(DATASET, name="evt-dataset"), room.ports)
    assert [await room.work(), await room.work()] == [True, False]
    assert topics(await room.told()) == ["model.trained"]


async def test_the_history_of_a_run_is_a_chain_of_its_facts(room: Room) -> None:
    room.executor.endings = [KILLED]
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    await room.tick(10)
    await room.work()
    async with room.store.reading() as tx:
        kinds = [entry.kind async for entry in verified(tx)]
    attempt = ["AttemptStarted", "StageBegun", "StageBegun", "StageBegun", "StageBegun"]
    assert kinds == ["RunQueued", "SpecFixed", *attempt, "RunPutBack", *attempt, "RunSucceeded"]


async def test_a_killed_run_is_tried_again_after_a_pause_and_then_given_up(room: Room) -> None:
    room.executor.endings = [KILLED] * 3
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    worked = 0
    for _ in range(60):
        worked += await room.work()
        await room.tick(1)
    assert worked == 3
    assert [made.handle.attempt for made in room.executor.started.values()] == [1, 2, 3]
    failed = (await room.told())[0].event
    assert isinstance(failed, TrainingFailed)
    assert (failed.code, failed.stage, failed.retryable) == ("killed", "train", True)


async def test_data_that_cannot_be_trained_on_fails_at_once_with_its_row(room: Room) -> None:
    refused = Failure(stage=Stage.PREPARE, code="one_class", reason="All rows carry one label", row=1, retryable=False)
    room.executor.endings = [refused]
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    failed = (await room.told())[0].event
    assert isinstance(failed, TrainingFailed)
    assert (failed.code, failed.row, failed.retryable) == ("one_class", 1, False)
    assert not await room.work()


async def test_a_cancelled_run_tells_nothing_and_cannot_be_cancelled_twice(room: Room) -> None:
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    run = await only_run(room)
    cancelled = await running.cancel_run("default", run, room.ports, actor="admin:1", reason="not needed")
    assert cancelled.status is RunStatus.CANCELLED
    assert not await room.work()
    assert await room.told() == []
    with pytest.raises(RunHasEnded):
        await running.cancel_run("default", run, room.ports, actor="admin:1", reason="again")


async def test_cancelling_a_run_that_is_being_worked_ends_what_executes_it(room: Room) -> None:
    async def cancel() -> None:
        room.executor.polled = None
        run = await only_run(room)
        await running.cancel_run("default", run, room.ports, actor="admin:1", reason="not needed")

    room.executor.polled = cancel
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    run = await showing.get_run("default", await only_run(room), room.ports)
    assert (run.status, run.executing) == (RunStatus.CANCELLED, False)
    assert await room.told() == []
    await room.tick()
    assert room.executor.cancelled == [f"{run.id}.1"]
    await room.tick(5)
    assert room.executor.cancelled == [f"{run.id}.1"]


async def test_a_worker_that_lost_its_lease_tells_nothing_and_the_next_one_follows_the_same_attempt(room: Room) -> None:
    async def overtaken() -> None:  # it was silent for so long that another worker took the job
        room.executor.polled = None
        async with room.store.transaction() as tx:
            table = columns(JobRow)
            await tx.execute(sa.update(table).values(fence=5, state="waiting"))

    room.executor.polled = overtaken
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    assert await room.told() == []
    await room.clock.advance(11)
    await room.work()
    assert topics(await room.told()) == ["model.trained"]
    assert (list(room.executor.started), room.executor.cancelled) == ([f"{await only_run(room)}.1"], [])


async def test_while_the_registry_is_away_the_run_waits(room: Room) -> None:
    room.champions.away = Unavailable(what="the registry")
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    assert (await showing.get_run("default", await only_run(room), room.ports)).status is RunStatus.QUEUED
    room.champions.away = None
    await room.tick(11)
    await room.work()
    assert topics(await room.told()) == ["model.trained"]


async def test_a_drift_waits_for_labels_and_then_learns_from_them(room: Room) -> None:
    room.champions.present = CHAMPION
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    await room.traffic(labelled=20)  # long before: of the old kind
    await room.clock.advance(600)
    await asking.take_drift(room.envelope(room.drift(), name="evt-drift"), room.ports)
    await room.traffic(labelled=29, unlabelled=50, start=100)
    for _ in range(5):
        await room.tick(1)
    assert not await room.work()
    await room.traffic(labelled=1, start=500)
    await room.tick(2)
    assert await room.work()
    assert len(room.inputs.examples) == 30
    assert {example.label for example in room.inputs.examples} == {"b"}
    assert room.executor.specs[-1].champion == CHAMPION
    assert room.executor.specs[-1].feedback_uri is not None
    told = (await room.told())[-1]
    assert isinstance(told.event, ModelTrained)
    assert (told.event.parent, told.causation, told.correlation) == (1, "evt-drift", "story-1")
    await room.tick(5)
    assert not await room.work()


async def test_a_drift_told_twice_is_answered_once(room: Room) -> None:
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    await room.traffic(labelled=40)
    for _ in range(2):
        await asking.take_drift(room.envelope(room.drift(), name="evt-drift"), room.ports)
        await room.tick(1)
    assert [await room.work(), await room.work()] == [True, False]


async def test_a_drift_without_labels_is_left_when_patience_ends(room: Room) -> None:
    await asking.take_dataset(room.envelope(DATASET), room.ports)
    await room.work()
    await asking.take_drift(room.envelope(room.drift()), room.ports)
    await room.tick(3601)
    await room.traffic(labelled=40)
    await room.tick(10)
    assert not await room.work()


async def test_a_drift_of_a_model_that_was_not_trained_here_changes_nothing(room: Room) -> None:
    await asking.take_drift(room.envelope(room.drift()), room.ports)
    await room.tick(2)
    assert not await room.work()


async def test_mirrored_failed_and_textless_requests_teach_nothing(room: Room) -> None:
    await room.traffic(labelled=5, source="mirror")
    await room.traffic(labelled=5, start=10, outcome="fault")
    await room.traffic(labelled=5, start=20, items=[{"label": "a"}])
    await room.traffic(labelled=5, start=40, task="embedding")
    await room.traffic(labelled=5, start=30)
    async with room.store.reading() as tx:
        found = await tx.labelled("default", "topics", room.clock.now(), room.clock.now(), 100)
    assert [example.text for example in found] == [f"text {number}" for number in range(30, 35)]


async def test_a_label_may_come_before_its_text_and_the_last_one_counts(room: Room) -> None:
    for label in ("x", "y"):
        said = FeedbackReceived(deployment="topics", request="req-0", label=label)
        await traffic.keep_labels([room.envelope(said)], room.ports)
    await room.traffic(labelled=0, unlabelled=1)
    async with room.store.reading() as tx:
        found = await tx.labelled("default", "topics", room.clock.now(), room.clock.now(), 100)
    assert [(example.text, example.label) for example in found] == [("text 0", "y")]


async def test_a_label_that_comes_again_late_undoes_no_correction(room: Room) -> None:
    await room.traffic(labelled=0, unlabelled=1)
    first, corrected = (
        room.envelope(FeedbackReceived(deployment="topics", request="req-0", label=label)) for label in ("x", "y")
    )
    for envelope in (first, corrected, first):  # the last as a dead letter of another service, sent again
        await traffic.keep_labels([envelope], room.ports)
    async with room.store.reading() as tx:
        found = await tx.labelled("default", "topics", room.clock.now(), room.clock.now(), 100)
    assert [example.label for example in found] == ["y"]


async def test_traffic_is_kept_bounded(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path) as room:
        room.ports = replace(room.ports, kept_examples=50)
        for start in range(0, 200, 20):
            await room.traffic(labelled=20, start=start)
            await room.clock.advance(1)
        async with room.store.reading() as tx:
            since = room.clock.now() - timedelta(hours=1)
            found = await tx.labelled("default", "topics", since, room.clock.now(), 1000)
        assert [example.text for example in found] == [f"text {number}" for number in range(150, 200)]


async def test_tenants_see_only_what_is_theirs(room: Room) -> None:
    await asking.take_dataset(room.envelope(DATASET, tenant="other"), room.ports)
    with pytest.raises(UnknownDataset):
        await showing.get_dataset("default", "topics-1", room.ports)
    run = (await showing.get_dataset("other", "topics-1", room.ports))[0].latest_run
    with pytest.raises(UnknownRun):
        await showing.get_run("default", run, room.ports)
    with pytest.raises(UnknownRun):
        await showing.read_log("default", run, room.ports, after=0)


async def test_lists_come_in_pages_newest_run_first(room: Room) -> None:
    for number in range(3):
        event = DatasetReady(dataset=f"set-{number}", uri="file:///x", model=f"model-{number}")
        await asking.take_dataset(room.envelope(event), room.ports)
    names = [d.announced.dataset for d in await showing.list_datasets("default", room.ports, after="set-0", limit=5)]
    assert names == ["set-1", "set-2"]
    runs = await showing.list_runs("default", room.ports, RunFilter(status="queued"), before="", limit=2)
    assert [run.dataset for run in runs] == ["set-2", "set-1"]
    rest = await showing.list_runs("default", room.ports, RunFilter(), before=runs[-1].id, limit=2)
    assert [run.dataset for run in rest] == ["set-0"]
