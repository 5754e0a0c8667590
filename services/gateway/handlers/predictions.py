"""Requests of any task: a version and a replica are chosen, the answer is passed on as it comes."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import trace

from services.contracts.errors import InternalError, Kind, Refusal
from services.contracts.names import place_of
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import PredictEvent, Result
from services.contracts.tasks.task import RequestLimits
from services.gateway.domain.limits import spend
from services.gateway.domain.requests import Answer, Predict, check_request_id, check_sticky_key
from services.gateway.domain.routing import Replica, sticky_ticket
from services.gateway.errors import DeadlinePassed, DeploymentNotReady, RoutesNotRead, UnknownDeployment
from services.gateway.ports import Policy, Ports, ReplicaRequest
from services.gateway.telemetry import FIRST_REQUEST, REQUEST_SECONDS, REQUESTS, RETRIES
from services.kit.core import telemetry

ELSEWHERE: Final = frozenset({Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.INTERNAL, Kind.NOT_FOUND})
"""Failures of one replica that another may not share."""

PATIENT: Final = frozenset({Kind.UNAVAILABLE, Kind.NOT_FOUND})
"""Of those, the ones that pass by themselves: a replica restarts, or has not loaded the version yet."""

FAULTS: Final = frozenset({Kind.INTERNAL, Kind.UNAVAILABLE})
"""What a version's statistics count as failed: a client's mistake, a full queue and a short deadline are not."""


@dataclass(slots=True)
class _Attempts:
    """What was tried for one request, and how it failed."""

    failed: set[tuple[str, int]] = field(default_factory=set)
    hard_failures: int = 0
    last: Refusal | None = None

    def note(self, replica: Replica, version: int, refusal: Refusal) -> None:
        self.failed.add((replica.id, version))
        self.hard_failures += refusal.kind not in PATIENT
        self.last = refusal


async def answer(command: Predict, ports: Ports) -> Answer:
    """The whole answer at once. Raises what `predict` does."""
    async with aclosing(predict(command, ports)) as events:
        async for event in events:
            if isinstance(event, Result):
                return Answer(
                    request_id=command.request_id,
                    deployment=command.deployment,
                    task=command.task,
                    payload=event.payload,
                    model=event.model,
                    version=event.version,
                    tokens=event.tokens,
                )
    raise InternalError


async def predict(command: Predict, ports: Ports) -> AsyncGenerator[PredictEvent, None]:
    """Answers with the version that the weights (or the sticky key) choose: deltas, if the task has any, and a result.

    A replica that fails before its first event is left for another, a failing canary for the primary, where the task
    may be asked twice; where no replica is ready the request waits `ready_wait_seconds` for one. Raises
    UnknownDeployment, NothingServed, VersionNotServed, DeploymentNotReady, DeadlinePassed, what the task refuses, and
    what the replica refuses.
    """
    started = ports.clock.monotonic()
    version, outcome = 0, "internal"
    try:
        check(command, ports.policy)
        if not ports.routes.knows(command.tenant, command.deployment):
            raise unknown(command.deployment, ports)
        async with aclosing(_with_retries(command, ports)) as events:
            async for event in events:
                if isinstance(event, Result):
                    version, outcome = event.version, "ok"
                    spend(event.tokens)
                yield event
    except Refusal as refusal:
        outcome = refusal.code
        raise
    except (asyncio.CancelledError, GeneratorExit):
        outcome = outcome if outcome == "ok" else "cancelled"
        raise
    finally:
        known = command.deployment if ports.routes.knows(command.tenant, command.deployment) else ""
        REQUESTS.labels(known, version, outcome).inc()
        REQUEST_SECONDS.labels(known).observe(ports.clock.monotonic() - started)


def check(command: Predict, policy: Policy) -> None:
    """Raises what the task refuses, and BadField or Malformed for what is no id and no key."""
    command.task.check(command.request, RequestLimits(characters=policy.text_limit_chars))
    check_request_id(command.request_id)
    check_sticky_key(command.sticky_key)


async def _with_retries(command: Predict, ports: Ports) -> AsyncGenerator[PredictEvent, None]:
    ticket = sticky_ticket(command.deployment, command.sticky_key) if command.sticky_key else ports.generator.random()
    began = ports.clock.monotonic()
    give_up_at = min(command.deadline, began + ports.policy.ready_wait_seconds)
    attempts, payload, passed_on = _Attempts(), command.encoded(), False
    while True:
        check_deadline(command.deadline, ports)
        choice = _choose(command, ticket, attempts, ports)
        if choice is None:
            await _wait_for_a_replica(command, attempts, give_up_at, ports)
            continue
        replica, version = choice
        try:
            async with aclosing(_attempt(command, payload, replica, version, ports, began=began)) as events:
                async for event in events:
                    if isinstance(event, Result):  # before it is passed on: then nobody may listen any more
                        _mirror(command, payload, event.version, ports)
                    passed_on = True
                    yield event
            return
        except Refusal as refusal:
            if passed_on or not command.task.repeatable or refusal.kind not in ELSEWHERE:
                raise
            attempts.note(replica, version, refusal)
            if attempts.hard_failures >= ports.policy.attempts:
                raise
            RETRIES.labels(refusal.code).inc()


def somebody_is_ready(command: Predict, ports: Ports) -> bool:
    """False where `predict` could only wait for a replica; true also where it refuses."""
    if not ports.routes.knows(command.tenant, command.deployment):
        return True
    try:
        return _choose(command, 0.0, _Attempts(), ports) is not None
    except Refusal:
        return True


def least_waiting(command: Predict, ports: Ports) -> int | None:
    """Requests that wait on the least loaded of the replicas that could answer; None where there is none."""
    try:
        plan = ports.routes.plan(command.tenant, command.deployment, ticket=0.0, version=command.version)
    except Refusal:
        return None
    now, load = ports.clock.monotonic(), ports.replicas.waiting
    picked = (ports.routes.pick(plan.place, version, at=now, load=load) for version in plan.versions)
    waits = [wait for replica in picked if replica is not None and (wait := load(replica.id)) is not None]
    return min(waits, default=None)


def check_deadline(deadline: float, ports: Ports) -> None:
    """Raises DeadlinePassed: whoever asked has given up, so nothing is begun for them."""
    if ports.clock.monotonic() >= deadline:
        raise DeadlinePassed


def unknown(deployment: str, ports: Ports) -> Refusal:
    """Before the table is read, not to know a deployment says nothing about it."""
    if ports.routes_read():
        return UnknownDeployment(deployment=deployment)
    return RoutesNotRead(retry_after_seconds=ports.policy.retry_after_seconds)


def _choose(command: Predict, ticket: float, attempts: _Attempts, ports: Ports) -> tuple[Replica, int] | None:
    plan = ports.routes.plan(command.tenant, command.deployment, ticket=ticket, version=command.version)
    now = ports.clock.monotonic()
    for version in plan.versions:
        without = {replica for replica, failed in attempts.failed if failed == version}
        replica = ports.routes.pick(plan.place, version, at=now, load=ports.replicas.waiting, without=without)
        if replica is not None:
            return replica, version
    return None


async def _wait_for_a_replica(command: Predict, attempts: _Attempts, give_up_at: float, ports: Ports) -> None:
    """Returns after a moment, with the slate clean; raises when there is nothing to wait for."""
    check_deadline(command.deadline, ports)
    last = attempts.last
    if last is not None and last.kind is Kind.OVERLOADED:
        raise last
    if ports.clock.monotonic() >= give_up_at:
        raise DeploymentNotReady(
            deployment=command.deployment, retry_after_seconds=ports.policy.retry_after_seconds
        ) from last
    await ports.clock.sleep(ports.policy.ready_poll_seconds)
    attempts.failed.clear()


async def _attempt(
    command: Predict, payload: bytes, replica: Replica, version: int, ports: Ports, *, began: float
) -> AsyncGenerator[PredictEvent, None]:
    """Asks one replica, and remembers of the version how it went."""
    served = (command.tenant, command.deployment, version)
    request = _replica_request(command, payload, version, command.source)
    asked = ports.clock.monotonic()
    brought_by = ports.routes.claim_first(*served)
    answered = False
    try:
        with _first_request(brought_by, request):
            async with aclosing(ports.replicas.predict(replica.id, request)) as events:
                async for event in events:
                    if isinstance(event, Result):
                        answered = True
                        ports.statistics.answered(
                            served,
                            texts=command.task.size(command.request),
                            waited_seconds=asked - began,
                            computed_seconds=ports.clock.monotonic() - asked,
                            at=ports.clock.now(),
                        )
                    yield event
    except Refusal as refusal:
        if refusal.kind in FAULTS:
            ports.statistics.failed(served, seconds=ports.clock.monotonic() - asked)
        raise
    finally:
        if brought_by is not None and not answered:
            ports.routes.release_first(*served)


@contextmanager
def _first_request(brought_by: Mapping[str, str] | None, request: ReplicaRequest) -> Iterator[None]:
    """A version's first request is answered inside the trace of its rollout, whose story so ends with it."""
    if brought_by is None:
        yield
        return
    request_span = trace.get_current_span().get_span_context()
    attributes: dict[str, str | int | float | bool] = {
        "millrace.deployment": request.deployment,
        "millrace.version": request.version,
    }
    with telemetry.span(FIRST_REQUEST, parent=brought_by, attributes=attributes) as opened:
        if request_span.is_valid:
            opened.add_link(request_span)
        yield


def _replica_request(command: Predict, payload: bytes, version: int, source: Source) -> ReplicaRequest:
    return ReplicaRequest(
        tenant=command.tenant,
        deployment=command.deployment,
        version=version,
        request_id=command.request_id,
        task=command.task.name,
        payload=payload,
        deadline=command.deadline,
        source=source,
    )


def _mirror(command: Predict, payload: bytes, answered_by: int, ports: Ports) -> None:
    """Live requests alone say something of the traffic, so no others are compared."""
    if command.source is not Source.LIVE:
        return
    version = ports.routes.mirror_of(command.tenant, command.deployment, answered_by, ticket=ports.generator.random())
    if version is None:
        return
    now, place = ports.clock.monotonic(), place_of(command.tenant, command.deployment)
    replica = ports.routes.pick(place, version, at=now, load=ports.replicas.waiting)
    if replica is not None:
        ports.mirrors.send(replica.id, _replica_request(command, payload, version, Source.MIRROR))
