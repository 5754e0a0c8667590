"""The use cases, on fakes and a clock that stands still."""

import asyncio
import base64
from datetime import UTC, datetime

import pytest

from services.contracts.artifact import Device, Precision
from services.contracts.errors import Malformed, MillraceError, Unavailable
from services.contracts.events import DeploymentChanged, Role
from services.contracts.tasks import CLASSIFICATION, EMBEDDING
from services.contracts.tasks.classification import ClassificationRequest
from services.contracts.tasks.embedding import EmbeddingRequest
from services.contracts.tasks.errors import ContextLengthExceeded, TextTooLong, UnknownTask
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import Result
from services.inference.domain.roster import Roster
from services.inference.domain.versions import State, Wish
from services.inference.errors import (
    ArtifactRefused,
    DeadlinePassed,
    EngineFailed,
    QueueFull,
    UnknownDeployment,
    VersionNotServed,
)
from services.inference.handlers import Predict, adopt_deployment, predict, restore
from services.kit.messaging.envelope import Envelope
from tests.unit.inference.fakes import Room
from tests.unit.inference.wishes import key, target, wish

CANARY, DRAINING = Role.CANARY, Role.DRAINING


def envelope(wanted: Wish) -> Envelope[DeploymentChanged]:
    changed, at = wanted.changed, datetime(2026, 1, 1, tzinfo=UTC)
    return Envelope(f"e{changed.generation}", changed, "registry", at, tenant=wanted.tenant)


async def adopt(room: Room, wanted: Wish) -> None:
    await adopt_deployment(envelope(wanted), room.ports)
    await room.settle()


async def ask(room: Room, *texts: str, version: int = 0, request: str = "", tenant: str = "default") -> Result:
    payload = CLASSIFICATION.encode(ClassificationRequest(texts or ("a text",)))
    command = Predict("topics", CLASSIFICATION.name, payload, 30.0, request, version, tenant=tenant)
    (event,) = [event async for event in predict(command, room.ports)]
    assert isinstance(event, Result)
    return event


async def test_a_wish_ends_in_a_version_that_answers() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    assert room.reporter.told == [[(1, "loading")], [(1, "ready")]]
    answer = await ask(room, "one two", "three")
    assert (answer.version, answer.model, answer.tokens) == (1, "topics", 3)
    assert [one.label for one in CLASSIFICATION.decode_result(answer.payload).predictions] == ["yes", "yes"]


async def test_each_tenant_has_deployments_of_its_own_whatever_their_names() -> None:
    room = Room()
    await adopt(room, wish(7, target(1)))
    await adopt(room, wish(1, target(2), tenant="acme"))
    assert ((await ask(room)).version, (await ask(room, tenant="acme")).version) == (1, 2)
    with pytest.raises(UnknownDeployment):
        await ask(room, tenant="nobody")
    assert [(logged.tenant, logged.record.version) for logged in room.log.requests] == [("default", 1), ("acme", 2)]
    await adopt(room, wish(2, tenant="acme"))
    assert (await ask(room)).version == 1  # what one tenant stops serves on for the other


async def test_what_was_wanted_is_served_again_after_a_restart_without_broker_and_registry() -> None:
    before = Room()
    await adopt(before, wish(3, target(1)))
    after = Room(remembered=before.remembered)
    await restore(after.ports)
    await after.settle()
    assert (await ask(after)).version == 1
    await adopt(after, wish(3, target(1)))
    assert after.artifacts.fetched == [key(1).digest]


async def test_an_older_generation_that_arrives_late_changes_nothing() -> None:
    room = Room()
    await adopt(room, wish(2, target(2)))
    await adopt(room, wish(1, target(1)))
    assert room.engines.engines == {key(2)}
    assert [kept.changed.generation for kept in room.remembered.wishes] == [2]


async def test_the_old_version_answers_while_the_new_one_comes_up_and_until_it_was_idle_for_a_while() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    room.engines.gate.clear()
    running = asyncio.create_task(ask(room))
    await room.settle()
    await adopt(room, wish(2, target(1, DRAINING, 0), target(2)))
    await room.pass_time(60)
    assert key(1) in room.engines.engines
    room.engines.gate.set()
    assert (await running).version == 1
    assert (await ask(room, version=1)).version == 1
    await room.pass_time(4)
    assert key(1) in room.engines.engines
    await room.pass_time(2)
    assert room.engines.engines == {key(2)}
    assert room.reporter.told[-1] == [(2, "ready")]
    with pytest.raises(VersionNotServed):
        await ask(room, version=1)


async def test_a_refused_artifact_is_reported_with_its_reason_and_the_old_version_serves_on() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    room.checker.refusal = ArtifactRefused("mask_ignored", "padding changes its answers")
    await adopt(room, wish(2, target(1, weight=90), target(2, CANARY, 10)))
    assert room.reporter.told[-1] == [(1, "ready"), (2, "failed")]
    assert room.roster.held[key(2)].reason == ("mask_ignored: The artifact was refused: padding changes its answers.")
    assert (await ask(room)).version == 1
    await room.pass_time(120)
    assert room.artifacts.fetched.count(key(2).digest) == 1


async def test_an_artifact_store_that_is_away_is_asked_again_after_growing_pauses() -> None:
    room = Room()
    room.artifacts.troubles = [Unavailable(what="the store")] * 3
    await adopt(room, wish(1, target(1)))
    assert room.reporter.told[-1] == [(1, "loading")]
    await room.pass_time(6.5)
    assert len(room.artifacts.fetched) == 3
    await room.pass_time(1)
    assert room.reporter.told[-1] == [(1, "ready")]


async def test_a_store_that_stays_away_fails_the_version_until_the_next_generation() -> None:
    room = Room()
    room.artifacts.troubles = [Unavailable(what="the store")] * 6
    await adopt(room, wish(1, target(1)))
    await room.pass_time(120)
    assert room.reporter.told[-1] == [(1, "failed")]
    await adopt(room, wish(2, target(1)))
    assert room.reporter.told[-1] == [(1, "ready")]


async def test_an_error_that_nobody_foresaw_fails_the_version_instead_of_loading_for_ever() -> None:
    room = Room()
    room.engines.load_error = ZeroDivisionError()
    await adopt(room, wish(1, target(1)))
    assert room.roster.held[key(1)].state is State.FAILED
    assert (room.roster.held[key(1)].reason or "").startswith("bring_up_broke:")


async def test_a_version_that_nothing_wants_any_more_stops_coming_up() -> None:
    room = Room()
    room.artifacts.troubles = [Unavailable(what="the store")]
    await adopt(room, wish(1, target(1)))
    await adopt(room, wish(2, target(2)))
    await room.pass_time(10)
    assert room.engines.engines == {key(2)}
    assert set(room.roster.held) == {key(2)}


async def test_a_rollback_during_draining_needs_no_loading() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    await adopt(room, wish(2, target(1, DRAINING, 0), target(2)))
    await adopt(room, wish(3, target(1), target(2, DRAINING, 0)))
    await room.pass_time(30)
    assert room.engines.engines == {key(1)}
    assert room.artifacts.fetched.count(key(1).digest) == 1


async def test_unloading_drops_the_local_copies_of_what_nobody_wants() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    await adopt(room, wish(2, target(2)))
    await room.pass_time(10)
    assert room.artifacts.kept == {key(2).digest}


async def test_a_request_is_one_record_however_many_texts_it_holds() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    await ask(room, "one", request="r1")
    await ask(room, "one", "two", request="r2")
    first, second = (logged.record for logged in room.log.requests)
    assert (first.request, second.request) == ("r1", "r2")
    assert first.items == [{"text": "one", "label": "yes", "score": 0.75}]
    assert [item["text"] for item in second.items] == ["one", "two"]
    assert (first.source, first.outcome, first.embedding) == ("live", "ok", base64.b64encode(b"\x00\x3c").decode())
    assert {logged.task for logged in room.log.requests} == {"classification"}
    assert room.observed == [("default", "topics", 1, "ok")] * 2


@pytest.mark.parametrize(("device", "variant"), [(Device.CPU, Precision.INT8), (Device.CUDA, Precision.FP16)])
async def test_a_record_names_the_variant_that_answered_on_this_device(device: Device, variant: Precision) -> None:
    replica = Room(roster=Roster(device))
    several = target(1).model_copy(update={"variants": [Precision.FP32, Precision.FP16, Precision.INT8]})
    await adopt(replica, wish(1, several))
    await ask(replica, "one")
    assert [logged.record.variant for logged in replica.log.requests] == [variant]


async def test_an_embedding_is_a_task_of_its_own_and_logged_as_one() -> None:
    replica = Room()
    await adopt(replica, wish(1, target(1)))
    payload = EMBEDDING.encode(EmbeddingRequest(["one two"]))
    command = Predict("topics", "embedding", payload, 30.0, "r1", source=Source.BATCH)
    (event,) = [event async for event in predict(command, replica.ports)]
    assert isinstance(event, Result)
    assert [values.tolist() for values in EMBEDDING.decode_result(event.payload).embeddings] == [[1.0]]
    (logged,) = replica.log.requests
    assert (logged.task, logged.record.source, logged.record.items) == ("embedding", "batch", [{"text": "one two"}])


async def test_a_model_that_fails_is_logged_as_a_fault_of_its_version() -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    room.engines.refusal = EngineFailed()
    with pytest.raises(EngineFailed):
        await ask(room)
    assert [(logged.record.outcome, logged.record.items) for logged in room.log.requests] == [
        ("fault", [{"text": "a text"}])
    ]


@pytest.mark.parametrize(
    "error",
    [
        QueueFull(queued=64, capacity=64),
        DeadlinePassed(seconds=0),
        VersionNotServed(version=1, deployment="topics"),
        ContextLengthExceeded(limit=16, unit="tokens", field="texts[0]"),
    ],
    ids=lambda error: error.code,
)
async def test_what_is_no_fault_of_the_version_is_counted_but_not_held_against_it(error: MillraceError) -> None:
    room = Room()
    await adopt(room, wish(1, target(1)))
    room.engines.refusal = error
    with pytest.raises(type(error)):
        await ask(room)
    assert room.log.requests == []
    assert room.observed == [("default", "topics", 1, error.code)]


async def test_what_cannot_be_answered_is_refused_before_it_is_queued() -> None:
    room = Room()
    with pytest.raises(UnknownDeployment):
        await ask(room)
    await adopt(room, wish(1, target(1)))
    with pytest.raises(TextTooLong):
        await ask(room, "x" * (16 * 32 + 1))
    with pytest.raises(Malformed):
        await anext(predict(Predict("topics", "classification", b"\xff", 30.0), room.ports))
    with pytest.raises(UnknownTask):
        await anext(predict(Predict("topics", "painting", b"", 30.0), room.ports))
    assert room.log.requests == []
    assert room.roster.in_flight == {}
