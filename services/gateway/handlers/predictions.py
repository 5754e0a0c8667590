"""Requests of any task: a version and a replica are chosen, the answer is passed on as it comes."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from services.contracts.errors import InternalError, Kind, MillraceError
from services.contracts.names import qualified_name
from services.contracts.tasks.records import Source
from services.contracts.tasks.stream import Delta, PredictEvent, Result
from services.contracts.tasks.task import RequestLimits, StreamingTask
from services.gateway.domain.requests import Answer, Predict, answer_of, check_request_id, check_sticky_key
from services.gateway.domain.routing import Replica, sticky_ticket
from services.gateway.errors import DeadlinePassed, DeploymentNotReady, RoutesNotRead, UnknownDeployment
from services.gateway.ports import Policy, Ports, ReplicaRequest, spend
from services.gateway.telemetry import FIRST_REQUEST, REQUEST_SECONDS, REQUESTS, RETRIES
from services.kit.core import telemetry

ELSEWHERE: Final = frozenset({Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.INTERNAL, Kind.NOT_FOUND})
"""Failures of one replica that another may not share."""

PASSING: Final = frozenset({Kind.UNAVAILABLE, Kind.NOT_FOUND})
"""Of those, the ones that pass by themselves: a replica restarts, or has not loaded the version yet."""

FAULTS: Final = frozenset({Kind.INTERNAL, Kind.UNAVAILABLE})
"""What a version's statistics count as failed: a client's mistake, a full queue and a short deadline are not."""

_GONE: Final = (asyncio.CancelledError, GeneratorExit)
"""How a request ends whose client has."""


@dataclass(slots=True)
class _Attempts:
    """What was tried for one request, and how it failed."""

    failed: set[tuple[str, int]] = field(default_factory=set)
    hard_failures: int = 0
    last: MillraceError | None = None

    def record(self, replica: Replica, version: int, error: MillraceError) -> None:
        self.failed.add((replica.id, version))
        self.hard_failures += error.kind not in PASSING
        self.last = error


async def answer(command: Predict, ports: Ports) -> Answer:
    """The whole answer at once. Raises what `predict` does."""
    async with aclosing(predict(command, ports)) as events:
        async for event in events:
            if isinstance(event, Result):
                return answer_of(command, event)
    raise InternalError


async def predict(command: Predict, ports: Ports) -> AsyncGenerator[PredictEvent, None]:
    """Answers with the version that the weights (or the sticky key) choose: deltas, if the task has any, and a result.

    A replica that fails before its first event is left for another, a failing canary for the primary, where the task
    may be asked twice; where no replica is ready the request waits `ready_wait_seconds` for one. Raises
    UnknownDeployment, NothingServed, VersionNotServed, DeploymentNotReady, DeadlinePassed, what the task refuses, and
    what the replica refuses.
    """
    with _Counted(command, ports) as counted:
        check(command, ports.policy)
        if not ports.routes.knows(command.tenant, command.deployment):
            raise unknown(command.deployment, ports)
        give_up_at = min(command.deadline, counted.began + ports.policy.ready_wait_seconds)
        ticket, payload, attempts, passed_on = _ticket(command, ports), command.encoded(), _Attempts(), False
        while True:
            check_deadline(command.deadline, ports)
            choice = _choose(command, ticket, attempts, ports)
            if choice is None:
                await _wait_for_a_replica(command, attempts, give_up_at, ports)
                continue
            try:
                request = _replica_request(command, payload, choice.model, choice.version, command.source)
                with _Attempt(command, request, ports, began=counted.began) as attempt:
                    async with aclosing(ports.replicas.predict(choice.replica.id, request)) as events:
                        async for event in events:
                            if isinstance(event, Result):  # before it is passed on: then nobody may listen any more
                                attempt.answered()
                                counted.answered(event)
                                _mirror(command, payload, event.version, ports)
                            else:
                                counted.passed_on()
                            passed_on = True
                            yield event if isinstance(event, Result) else Delta(event.payload, choice.version)
                return
            except MillraceError as error:
                if passed_on or not command.task.repeatable or error.kind not in ELSEWHERE:
                    raise
                attempts.record(choice.replica, choice.version, error)
                if attempts.hard_failures >= ports.policy.attempts:
                    raise
                RETRIES.add(1, tenant=command.tenant, code=error.code)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The replica that is tried, and the version that it has ready."""

    replica: Replica
    model: str
    version: int


class _Counted:
    """One request, from its arrival to its end, however it ends."""

    __slots__ = ("_chunks", "_command", "_outcome", "_ports", "_version", "began")

    def __init__(self, command: Predict, ports: Ports) -> None:
        self._command = command
        self._ports = ports
        self._version, self._outcome, self._chunks = 0, "", 0
        self.began = ports.clock.monotonic()

    def answered(self, result: Result) -> None:
        self._version, self._outcome = result.version, "ok"
        spend(result.tokens)

    def passed_on(self) -> None:
        """A chunk of an answer, which costs a token at least."""
        self._chunks += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._outcome and isinstance(error, _GONE):  # who hangs up before the end pays for what came
            spend(self._chunks)
        outcome = self._outcome or ("cancelled" if isinstance(error, _GONE) else "internal")
        if isinstance(error, MillraceError):
            outcome = error.code
        command, ports = self._command, self._ports
        known = command.deployment if ports.routes.knows(command.tenant, command.deployment) else ""
        REQUESTS.add(1, tenant=command.tenant, deployment=known, version=self._version, outcome=outcome)
        REQUEST_SECONDS.record(ports.clock.monotonic() - self.began, tenant=command.tenant, deployment=known)


class _Attempt:
    """One replica that is asked; what comes of it is remembered of the version, and ends the story of its rollout."""

    __slots__ = ("_answered", "_began", "_brought_by", "_command", "_ports", "_request", "_sent_at", "_served", "_span")

    def __init__(self, command: Predict, request: ReplicaRequest, ports: Ports, *, began: float) -> None:
        self._command = command
        self._request = request
        self._ports = ports
        self._began = began
        self._served = (command.tenant, command.deployment, request.version)
        self._answered = False
        self._span: AbstractContextManager[None] | None = None

    def answered(self) -> None:
        self._answered, clock = True, self._ports.clock
        self._ports.statistics.answered(
            self._served,
            texts=self._command.task.size(self._command.request),
            waited_seconds=self._sent_at - self._began,
            computed_seconds=clock.monotonic() - self._sent_at,
            at=clock.now(),
        )

    def __enter__(self) -> Self:
        self._sent_at = self._ports.clock.monotonic()
        self._brought_by = self._ports.routes.claim_first(*self._served)
        if self._brought_by is not None:
            self._span = _first_request(self._brought_by, self._request)
            self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
        if isinstance(error, MillraceError) and error.kind in FAULTS:
            self._ports.statistics.failed(self._served, seconds=self._ports.clock.monotonic() - self._sent_at)
        if self._brought_by is not None and not self._answered:
            self._ports.routes.release_first(*self._served)


def check(command: Predict, policy: Policy) -> None:
    """Raises what the task refuses, and BadField or Malformed for what is no id and no key."""
    command.task.check(command.request, RequestLimits(characters=policy.text_limit_chars))
    check_request_id(command.request_id)
    check_sticky_key(command.sticky_key)


def _ticket(command: Predict, ports: Ports) -> float:
    if command.sticky_key:
        return sticky_ticket(command.deployment, command.sticky_key)
    return ports.generator.random()


def somebody_is_ready(command: Predict, ports: Ports) -> bool:
    """False where `predict` could only wait for a replica; true also where it refuses."""
    if not ports.routes.knows(command.tenant, command.deployment):
        return True
    try:
        return _choose(command, 0.0, _Attempts(), ports) is not None
    except MillraceError:
        return True


def least_waiting(command: Predict, ports: Ports) -> int | None:
    """Requests that wait on the least loaded of the replicas that could answer; None where there is none."""
    try:
        plan = ports.routes.plan(command.tenant, command.deployment, ticket=0.0, version=command.version)
    except MillraceError:
        return None
    now, load = ports.clock.monotonic(), ports.replicas.waiting
    picked = (ports.routes.pick(plan.key, plan.model, version, at=now, load=load) for version in plan.versions)
    waits = [wait for replica in picked if replica is not None and (wait := load(replica.id)) is not None]
    return min(waits, default=None)


def check_deadline(deadline: float, ports: Ports) -> None:
    """Raises DeadlinePassed: whoever asked has given up, so nothing is begun for them."""
    if ports.clock.monotonic() >= deadline:
        raise DeadlinePassed


def unknown(deployment: str, ports: Ports) -> MillraceError:
    """Before the table is read, not to know a deployment says nothing about it."""
    if ports.routes_read():
        return UnknownDeployment(deployment=deployment)
    return RoutesNotRead(retry_after_seconds=ports.policy.retry_after_seconds)


def _choose(command: Predict, ticket: float, attempts: _Attempts, ports: Ports) -> _Choice | None:
    plan = ports.routes.plan(command.tenant, command.deployment, ticket=ticket, version=command.version)
    now = ports.clock.monotonic()
    for version in plan.versions:
        without = {replica for replica, failed in attempts.failed if failed == version}
        load = ports.replicas.waiting
        replica = ports.routes.pick(plan.key, plan.model, version, at=now, load=load, without=without)
        if replica is not None:
            return _Choice(replica, plan.model, version)
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


@contextmanager
def _first_request(brought_by: Mapping[str, str], request: ReplicaRequest) -> Iterator[None]:
    """A version's first request is answered inside the trace of its rollout, whose story so ends with it."""
    request_span = telemetry.current_span_context()
    attributes: dict[str, str | int | float | bool] = {
        "millrace.deployment": request.deployment,
        "millrace.version": request.version,
    }
    with telemetry.span(FIRST_REQUEST, parent=brought_by, attributes=attributes) as opened:
        if request_span.is_valid:
            opened.add_link(request_span)
        yield


def _replica_request(command: Predict, payload: bytes, model: str, version: int, source: Source) -> ReplicaRequest:
    return ReplicaRequest(
        tenant=command.tenant,
        deployment=command.deployment,
        model=model,
        version=version,
        request_id=command.request_id,
        task=command.task.name,
        payload=payload,
        deadline=command.deadline,
        source=source,
        streams=isinstance(command.task, StreamingTask),
    )


def _mirror(command: Predict, payload: bytes, answered_by: int, ports: Ports) -> None:
    """Live requests alone say something of the traffic, so no others are compared."""
    if command.source is not Source.LIVE:
        return
    version = ports.routes.mirror_of(command.tenant, command.deployment, answered_by, ticket=ports.generator.random())
    if version is None:
        return
    now, key = ports.clock.monotonic(), qualified_name(command.tenant, command.deployment)
    model = ports.routes.desired(command.tenant, command.deployment).model
    replica = ports.routes.pick(key, model, version, at=now, load=ports.replicas.waiting)
    if replica is not None:
        ports.mirrors.send(replica.id, _replica_request(command, payload, model, version, Source.MIRROR))
