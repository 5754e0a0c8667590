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
from services.inference.domain.loaded_models import LoadedModels
from services.inference.domain.versions import DesiredDeployment, State
from services.inference.errors import (
    ArtifactRefused,
    DeadlinePassed,
    EngineFailed,
    QueueFull,
    UnknownDeployment,
    VersionNotServed,
)
from services.inference.handlers.deployments import on_deployment_changed, restore
from services.inference.handlers.predictions import Predict, predict
from services.kit.messaging.envelope import Envelope
from tests.unit.inference.builders import deployment, key, target
from tests.unit.inference.fakes import ReplicaUnderTest

CANARY, DRAINING = Role.CANARY, Role.DRAINING


def envelope(desired: DesiredDeployment) -> Envelope[DeploymentChanged]:
    changed, at = desired.changed, datetime(2026, 1, 1, tzinfo=UTC)
    return Envelope(f"e{changed.generation}", changed, "registry", at, tenant=desired.tenant)


async def apply(replica: ReplicaUnderTest, desired: DesiredDeployment) -> None:
    await on_deployment_changed(envelope(desired), replica.ports)
    await replica.settle()


async def send(
    replica: ReplicaUnderTest, *texts: str, version: int = 0, request: str = "", tenant: str = "default"
) -> Result:
    payload = CLASSIFICATION.encode(ClassificationRequest(texts or ("a text",)))
    command = Predict("topics", CLASSIFICATION.name, payload, 30.0, request, version, tenant=tenant)
    (event,) = [event async for event in predict(command, replica.ports)]
    assert isinstance(event, Result)
    return event


async def test_a_desired_version_ends_in_a_version_that_answers() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    assert replica.reporter.reports == [[(1, "loading")], [(1, "ready")]]
    answer = await send(replica, "one two", "three")
    assert (answer.version, answer.model, answer.tokens) == (1, "topics", 3)
    assert [one.label for one in CLASSIFICATION.decode_result(answer.payload).predictions] == ["yes", "yes"]


async def test_each_tenant_has_deployments_of_its_own_whatever_their_names() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(7, target(1)))
    await apply(replica, deployment(1, target(2), tenant="acme"))
    assert ((await send(replica)).version, (await send(replica, tenant="acme")).version) == (1, 2)
    with pytest.raises(UnknownDeployment):
        await send(replica, tenant="nobody")
    assert [(logged.tenant, logged.record.version) for logged in replica.log.requests] == [("default", 1), ("acme", 2)]
    await apply(replica, deployment(2, tenant="acme"))
    assert (await send(replica)).version == 1  # what one tenant stops serves on for the other


async def test_what_was_desired_is_served_again_after_a_restart_without_broker_and_registry() -> None:
    before = ReplicaUnderTest()
    await apply(before, deployment(3, target(1)))
    after = ReplicaUnderTest(desired_state=before.desired_state)
    await restore(after.ports)
    await after.settle()
    assert (await send(after)).version == 1
    await apply(after, deployment(3, target(1)))
    assert after.artifacts.fetched == [key(1).digest]


async def test_an_older_generation_that_arrives_late_changes_nothing() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(2, target(2)))
    await apply(replica, deployment(1, target(1)))
    assert replica.engines.engines == {key(2)}
    assert [stored.changed.generation for stored in replica.desired_state.deployments] == [2]


async def test_the_old_version_answers_while_the_new_one_comes_up_and_until_it_was_idle_for_a_while() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    replica.engines.gate.clear()
    running = asyncio.create_task(send(replica))
    await replica.settle()
    await apply(replica, deployment(2, target(1, DRAINING, 0), target(2)))
    await replica.pass_time(60)
    assert key(1) in replica.engines.engines
    replica.engines.gate.set()
    assert (await running).version == 1
    assert (await send(replica, version=1)).version == 1
    await replica.pass_time(4)
    assert key(1) in replica.engines.engines
    await replica.pass_time(2)
    assert replica.engines.engines == {key(2)}
    assert replica.reporter.reports[-1] == [(2, "ready")]
    with pytest.raises(VersionNotServed):
        await send(replica, version=1)


async def test_a_refused_artifact_is_reported_with_its_reason_and_the_old_version_serves_on() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    replica.checker.error = ArtifactRefused("mask_ignored", "padding changes its answers")
    await apply(replica, deployment(2, target(1, weight=90), target(2, CANARY, 10)))
    assert replica.reporter.reports[-1] == [(1, "ready"), (2, "failed")]
    assert replica.models.actual[key(2)].reason == (
        "mask_ignored: The artifact was refused: padding changes its answers."
    )
    assert (await send(replica)).version == 1
    await replica.pass_time(120)
    assert replica.artifacts.fetched.count(key(2).digest) == 1


async def test_an_artifact_store_that_is_away_is_tried_again_after_growing_pauses() -> None:
    replica = ReplicaUnderTest()
    replica.artifacts.troubles = [Unavailable(what="the store")] * 3
    await apply(replica, deployment(1, target(1)))
    assert replica.reporter.reports[-1] == [(1, "loading")]
    await replica.pass_time(6.5)
    assert len(replica.artifacts.fetched) == 3
    await replica.pass_time(1)
    assert replica.reporter.reports[-1] == [(1, "ready")]


async def test_a_store_that_stays_away_fails_the_version_until_the_next_generation() -> None:
    replica = ReplicaUnderTest()
    replica.artifacts.troubles = [Unavailable(what="the store")] * 6
    await apply(replica, deployment(1, target(1)))
    await replica.pass_time(120)
    assert replica.reporter.reports[-1] == [(1, "failed")]
    await apply(replica, deployment(2, target(1)))
    assert replica.reporter.reports[-1] == [(1, "ready")]


async def test_an_error_that_nobody_foresaw_fails_the_version_instead_of_loading_for_ever() -> None:
    replica = ReplicaUnderTest()
    replica.engines.load_error = ZeroDivisionError()
    await apply(replica, deployment(1, target(1)))
    assert replica.models.actual[key(1)].state is State.FAILED
    assert (replica.models.actual[key(1)].reason or "").startswith("bring_up_broke:")


async def test_a_version_that_nothing_wants_any_more_stops_coming_up() -> None:
    replica = ReplicaUnderTest()
    replica.artifacts.troubles = [Unavailable(what="the store")]
    await apply(replica, deployment(1, target(1)))
    await apply(replica, deployment(2, target(2)))
    await replica.pass_time(10)
    assert replica.engines.engines == {key(2)}
    assert set(replica.models.actual) == {key(2)}


async def test_a_rollback_during_draining_needs_no_loading() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    await apply(replica, deployment(2, target(1, DRAINING, 0), target(2)))
    await apply(replica, deployment(3, target(1), target(2, DRAINING, 0)))
    await replica.pass_time(30)
    assert replica.engines.engines == {key(1)}
    assert replica.artifacts.fetched.count(key(1).digest) == 1


async def test_unloading_drops_the_local_copies_of_what_nobody_wants() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    await apply(replica, deployment(2, target(2)))
    await replica.pass_time(10)
    assert replica.artifacts.stored == {key(2).digest}


async def test_a_request_is_one_record_however_many_texts_it_holds() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    await send(replica, "one", request="r1")
    await send(replica, "one", "two", request="r2")
    first, second = (logged.record for logged in replica.log.requests)
    assert (first.request, second.request) == ("r1", "r2")
    assert first.items == [{"text": "one", "label": "yes", "score": 0.75}]
    assert [item["text"] for item in second.items] == ["one", "two"]
    assert (first.source, first.outcome, first.embedding) == ("live", "ok", base64.b64encode(b"\x00\x3c").decode())
    assert {logged.task for logged in replica.log.requests} == {"classification"}
    assert replica.observed == [("default", "topics", 1, "ok")] * 2


@pytest.mark.parametrize(("device", "variant"), [(Device.CPU, Precision.INT8), (Device.CUDA, Precision.FP16)])
async def test_a_record_names_the_variant_that_answered_on_this_device(device: Device, variant: Precision) -> None:
    replica = ReplicaUnderTest(models=LoadedModels(device))
    several = target(1).model_copy(update={"variants": [Precision.FP32, Precision.FP16, Precision.INT8]})
    await apply(replica, deployment(1, several))
    await send(replica, "one")
    assert [logged.record.variant for logged in replica.log.requests] == [variant]


async def test_an_embedding_is_a_task_of_its_own_and_logged_as_one() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    payload = EMBEDDING.encode(EmbeddingRequest(["one two"]))
    command = Predict("topics", "embedding", payload, 30.0, "r1", source=Source.BATCH)
    (event,) = [event async for event in predict(command, replica.ports)]
    assert isinstance(event, Result)
    assert [values.tolist() for values in EMBEDDING.decode_result(event.payload).embeddings] == [[1.0]]
    (logged,) = replica.log.requests
    assert (logged.task, logged.record.source, logged.record.items) == ("embedding", "batch", [{"text": "one two"}])


async def test_a_model_that_fails_is_logged_as_a_fault_of_its_version() -> None:
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    replica.engines.error = EngineFailed()
    with pytest.raises(EngineFailed):
        await send(replica)
    assert [(logged.record.outcome, logged.record.items) for logged in replica.log.requests] == [
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
    replica = ReplicaUnderTest()
    await apply(replica, deployment(1, target(1)))
    replica.engines.error = error
    with pytest.raises(type(error)):
        await send(replica)
    assert replica.log.requests == []
    assert replica.observed == [("default", "topics", 1, error.code)]


async def test_what_cannot_be_answered_is_refused_before_it_is_queued() -> None:
    replica = ReplicaUnderTest()
    with pytest.raises(UnknownDeployment):
        await send(replica)
    await apply(replica, deployment(1, target(1)))
    with pytest.raises(TextTooLong):
        await send(replica, "x" * (16 * 32 + 1))
    with pytest.raises(Malformed):
        await anext(predict(Predict("topics", "classification", b"\xff", 30.0), replica.ports))
    with pytest.raises(UnknownTask):
        await anext(predict(Predict("topics", "painting", b"", 30.0), replica.ports))
    assert replica.log.requests == []
    assert replica.models.in_flight == {}
