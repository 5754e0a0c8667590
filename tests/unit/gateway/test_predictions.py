"""Requests on a virtual clock: which version and replica answer, and what is tried again."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from services.contracts.errors import BadField, ErrorBody, Kind, MillraceError, Relayed, TimedOut
from services.contracts.events import Role
from services.contracts.tasks.classification import Classification
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import Delta, PredictEvent, Result
from services.gateway.errors import (
    DeadlinePassed,
    DeploymentNotReady,
    ReplicaFull,
    ReplicaLost,
    RoutesNotRead,
    UnknownDeployment,
    VersionNotServed,
)
from services.gateway.handlers import answer, follow_deployment, follow_replica, predict
from services.gateway.ports import Policy, ReplicaRequest, current_permit
from services.kit.messaging.envelope import Envelope
from tests.unit.gateway.fakes import FakeReplicas, GatewayFleet, answered, command, deployment, report, target


def serving(*targets: Any, replicas: dict[str, tuple[int, ...]], mirror: float = 0.0) -> GatewayFleet:
    fleet = GatewayFleet()
    fleet.routes.deployment_changed("default", deployment(*targets, mirror=mirror), {})
    for name, ready in replicas.items():
        fleet.routes.replica_reported(report(name, *ready), at=0)
    return fleet


def fails_for(failing: dict[tuple[str, int], MillraceError]) -> Any:
    def behave(replica: str, request: ReplicaRequest) -> Result:
        error = failing.get((replica, request.version))
        if error is not None:
            raise error
        return answered(request)

    return behave


def relayed(kind: Kind) -> Relayed:
    return Relayed(kind, ErrorBody(code="from_replica", message="no"))


async def test_an_answer_names_the_version_that_gave_it() -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    reply = await answer(command(), fleet.ports)
    assert (reply.version, reply.request_id, len(reply.result().predictions)) == (1, "req-1", 1)


async def test_a_lost_replica_is_left_for_another() -> None:
    fleet = serving(target(1), replicas={"r1": (1,), "r2": (1,)})
    fleet.replicas.loads = {"r1": 0, "r2": 5}
    fleet.replicas.behaviour = fails_for({("r1", 1): ReplicaLost()})
    reply = await answer(command(), fleet.ports)
    assert reply.version == 1
    assert [replica for replica, _ in fleet.replicas.requests] == ["r1", "r2"]


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.INTERNAL, Kind.OVERLOADED, Kind.NOT_FOUND])
async def test_a_failing_canary_leaves_the_request_to_the_primary(kind: Kind) -> None:
    fleet = serving(target(1, weight=0), target(2, Role.CANARY, 100), replicas={"r1": (1, 2)})
    fleet.replicas.behaviour = fails_for({("r1", 2): relayed(kind)})
    reply = await answer(command(), fleet.ports)
    assert [request.version for _, request in fleet.replicas.requests] == [2, 1]
    assert reply.version == 1


async def test_what_is_wrong_with_the_request_itself_is_not_tried_again() -> None:
    fleet = serving(target(1), replicas={"r1": (1,), "r2": (1,)})
    for error in (relayed(Kind.INVALID), TimedOut(seconds=30)):
        fleet.replicas.requests.clear()
        fleet.replicas.behaviour = fails_for({("r1", 1): error, ("r2", 1): error})
        with pytest.raises(type(error)):
            await answer(command(), fleet.ports)
        assert len(fleet.replicas.requests) == 1


async def test_full_replicas_refuse_at_once() -> None:
    fleet = serving(target(1), replicas={"r1": (1,), "r2": (1,)})
    full = ReplicaFull(queued=8, retry_after_seconds=1.0)
    fleet.replicas.behaviour = fails_for({("r1", 1): full, ("r2", 1): full})
    with pytest.raises(ReplicaFull):
        await answer(command(), fleet.ports)
    assert len(fleet.replicas.requests) == 2


async def test_a_request_that_breaks_every_replica_is_given_up_after_a_few() -> None:
    fleet = serving(target(1), replicas={f"r{number}": (1,) for number in range(9)})
    broken = relayed(Kind.INTERNAL)
    fleet.replicas.behaviour = fails_for({(f"r{number}", 1): broken for number in range(9)})
    with pytest.raises(Relayed):
        await answer(command(), fleet.ports)
    assert len(fleet.replicas.requests) == Policy().attempts


async def test_a_request_waits_for_a_replica_to_become_ready() -> None:
    fleet = serving(target(1), replicas={})
    task = asyncio.create_task(answer(command(), fleet.ports))
    await asyncio.sleep(0)
    await fleet.clock.advance(1.0)
    assert not task.done()
    fleet.routes.replica_reported(report("r1", 1), at=fleet.clock.monotonic())
    await fleet.clock.advance(0.1)
    assert (await task).version == 1


@pytest.mark.parametrize(
    ("deadline", "given_up", "error"), [(30.0, 5.0, DeploymentNotReady), (2.0, 2.0, DeadlinePassed)]
)
async def test_the_wait_ends_with_its_limit_or_the_deadline(
    deadline: float, given_up: float, error: type[MillraceError]
) -> None:
    fleet = serving(target(1), replicas={})
    task = asyncio.create_task(answer(command(deadline=deadline), fleet.ports))
    await asyncio.sleep(0)
    await fleet.clock.advance(given_up - 0.2)
    assert not task.done()
    await fleet.clock.advance(0.4)
    with pytest.raises(error) as refused:
        await task
    assert refused.value.retry_after == 1.0


async def test_a_request_whose_deadline_has_passed_reaches_no_replica() -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    await fleet.clock.advance(5.0)
    with pytest.raises(DeadlinePassed):
        await answer(command(deadline=5.0), fleet.ports)
    assert fleet.replicas.requests == []


async def test_before_the_table_is_read_nothing_is_called_unknown() -> None:
    fleet = GatewayFleet(routes_read=False)
    with pytest.raises(RoutesNotRead):
        await answer(command(), fleet.ports)
    fleet.routes_read = True
    with pytest.raises(UnknownDeployment):
        await answer(command(), fleet.ports)


async def test_a_sticky_key_always_meets_one_version() -> None:
    fleet = serving(target(1, weight=50), target(2, Role.CANARY, 50), replicas={"r1": (1, 2)})
    for key in ("a", "b", "c"):
        versions = {(await answer(command(sticky_key=key), fleet.ports)).version for _ in range(20)}
        assert len(versions) == 1


async def test_mirrors_carry_the_same_request_to_the_other_version() -> None:
    fleet = serving(target(1), target(2, Role.CANARY, 0), replicas={"r1": (1, 2)}, mirror=1.0)
    await answer(command(), fleet.ports)
    ((replica, request),) = fleet.mirrors.sent
    assert (replica, request.version, request.request_id, request.source) == ("r1", 2, "req-1", Source.MIRROR)
    assert request.payload == fleet.replicas.requests[0][1].payload


@pytest.mark.parametrize("source", [Source.BATCH, Source.KAFKA, Source.PROBE])
async def test_only_live_requests_are_mirrored(source: Source) -> None:
    fleet = serving(target(1), target(2, Role.CANARY, 0), replicas={"r1": (1, 2)}, mirror=1.0)
    await answer(command(source=source), fleet.ports)
    assert fleet.mirrors.sent == []
    assert fleet.replicas.requests[0][1].source is source


async def test_a_failed_first_request_lets_the_next_be_the_first() -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    fleet.routes = type(fleet.routes)(stale_after_seconds=15.0)
    fleet.routes.deployment_changed("default", deployment(target(1)), {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    fleet.routes.replica_reported(report("r1", 1), at=0)
    fleet.replicas.behaviour = fails_for({("r1", 1): relayed(Kind.INVALID)})
    with pytest.raises(Relayed):
        await answer(command(), fleet.ports)
    assert fleet.routes.claim_first("default", "news", 1) is not None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"texts": []}, "texts"),
        ({"texts": ["a"] * 65}, "texts"),
        ({"texts": ["a", ""]}, "texts[1]"),
        ({"texts": ["a" * 10_001]}, "texts[0]"),
        ({"request_id": "no good"}, "request_id"),
        ({"sticky_key": "k" * 201}, "sticky_key"),
    ],
)
async def test_a_bad_request_is_refused_before_it_is_sent_to_any_replica(changes: dict[str, Any], field: str) -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    with pytest.raises(BadField) as refused:
        await answer(command(**changes), fleet.ports)
    assert refused.value.field == field
    assert not fleet.replicas.requests


async def test_replicas_that_are_silent_and_unreachable_are_forgotten() -> None:
    fleet = GatewayFleet()
    now = fleet.clock.now()
    for name in ("r1", "r2"):
        await follow_replica(Envelope(id=name, event=report(name, 1), source="t", time=now), fleet.ports)
    assert fleet.replicas.stored == ["r1", "r2"]
    fleet.replicas.loads["r1"] = None
    await fleet.clock.advance(20)
    await follow_replica(Envelope(id="x", event=report("r3", 1), source="t", time=now), fleet.ports)
    assert fleet.replicas.stored == ["r2", "r3"]


async def test_the_deployment_event_sets_the_weights() -> None:
    fleet = GatewayFleet()
    event = Envelope(id="e", event=deployment(target(4)), source="t", time=fleet.clock.now(), tenant="acme")
    await follow_deployment(event, fleet.ports)
    assert fleet.routes.plan("acme", "news", ticket=0.1).versions == (4,)


async def test_a_version_that_is_requested_answers_whatever_the_weights() -> None:
    fleet = serving(target(1), target(2, Role.CANARY, 0), replicas={"r1": (1, 2)})
    versions = {(await answer(command(version=2), fleet.ports)).version for _ in range(10)}
    assert versions == {2}


async def test_a_version_that_is_not_served_is_not_replaced_by_another() -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    with pytest.raises(VersionNotServed) as refused:
        await answer(command(version=3), fleet.ports)
    assert refused.value.field == "version"
    assert not fleet.replicas.requests


async def test_a_payload_that_came_encoded_is_passed_on_byte_for_byte() -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    payload = command().encoded() + b"\x9a\x06\x03new"  # a field that this gateway does not know yet
    await answer(command(payload=payload), fleet.ports)
    assert fleet.replicas.requests[0][1].payload is payload


class Breaking(FakeReplicas):
    """Sends a delta, and then breaks."""

    async def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
        self.requests.append((replica, request))
        yield Delta(b"some")
        raise ReplicaLost


async def test_a_request_is_tried_elsewhere_only_before_its_first_byte() -> None:
    fleet = serving(target(1), replicas={"r1": (1,), "r2": (1,)})
    fleet.replicas = Breaking()
    events = predict(command(), fleet.ports)
    assert await anext(events) == Delta(b"some", version=1)
    with pytest.raises(ReplicaLost):
        await anext(events)
    assert len(fleet.replicas.requests) == 1


async def test_a_task_that_may_not_be_repeated_is_sent_once() -> None:
    class Unrepeatable(Classification):
        repeatable = False

    fleet = serving(target(1), replicas={"r1": (1,), "r2": (1,)})
    fleet.replicas.behaviour = fails_for({("r1", 1): ReplicaLost(), ("r2", 1): ReplicaLost()})
    with pytest.raises(ReplicaLost):
        await answer(command(task=Unrepeatable()), fleet.ports)
    assert len(fleet.replicas.requests) == 1


async def test_whoever_stops_listening_before_the_end_lets_the_next_be_the_first() -> None:
    fleet = serving(target(1), replicas={"r1": (1,)})
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    fleet.routes = type(fleet.routes)(stale_after_seconds=15.0)
    fleet.routes.deployment_changed("default", deployment(target(1)), trace)
    fleet.routes.replica_reported(report("r1", 1), at=0)
    fleet.replicas = Breaking()
    events = predict(command(), fleet.ports)
    assert await anext(events) == Delta(b"some", version=1)
    await events.aclose()
    assert fleet.routes.claim_first("default", "news", 1) is not None


async def test_whoever_hangs_up_pays_for_the_chunks_that_came_and_a_failure_costs_nothing() -> None:
    class Endless(FakeReplicas):
        async def predict(self, replica: str, request: ReplicaRequest) -> AsyncGenerator[PredictEvent, None]:
            while True:
                yield Delta(b"some")

    fleet = serving(target(1), replicas={"r1": (1,)})
    permit = SimpleNamespace(tokens=0)
    token = current_permit.set(permit)  # type: ignore[arg-type]
    try:
        fleet.replicas = Endless()
        events = predict(command(), fleet.ports)
        for _ in range(3):
            await anext(events)
        await events.aclose()
        assert permit.tokens == 3
        fleet.replicas = Breaking()
        events = predict(command(), fleet.ports)
        await anext(events)
        with pytest.raises(ReplicaLost):
            await anext(events)
        assert permit.tokens == 3
    finally:
        current_permit.reset(token)


async def test_every_replica_is_called_in_the_name_of_the_requests_tenant_the_mirrored_version_too() -> None:
    fleet = GatewayFleet()
    changed = deployment(target(1), target(2, Role.CANARY, 0), mirror=1.0)
    fleet.routes.deployment_changed("acme", changed, {})
    ready = report("r1", 1, 2)
    of_acme = [version.model_copy(update={"tenant": "acme"}) for version in ready.versions]
    fleet.routes.replica_reported(ready.model_copy(update={"versions": of_acme}), at=0)
    await answer(command(tenant="acme"), fleet.ports)
    sent = [request for _, request in (*fleet.replicas.requests, *fleet.mirrors.sent)]
    assert {(request.tenant, request.version) for request in sent} == {("acme", 1), ("acme", 2)}
