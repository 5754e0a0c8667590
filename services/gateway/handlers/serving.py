"""The gateway's use cases: classify, embed, announce a data set, send feedback, follow the routing events."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from services.contracts.errors import Kind, Refusal
from services.contracts.events import DatasetReady, DeploymentChanged, Event, FeedbackReceived, ReplicaReported
from services.contracts.names import place_of
from services.gateway.domain.requests import (
    MAX_TEXTS,
    Accepted,
    Answer,
    Caller,
    Classify,
    Embedded,
    check_request_id,
    check_sticky_key,
    check_texts,
    moved,
)
from services.gateway.domain.routing import Replica, Served, sticky_ticket
from services.gateway.errors import (
    DeadlinePassed,
    DeploymentNotReady,
    OutboxFull,
    RoutesNotRead,
    UnknownDeployment,
)
from services.gateway.ports import Ports, Question, spend
from services.gateway.telemetry import FIRST_REQUEST, REQUEST_SECONDS, REQUESTS, RETRIES
from services.kit.core import telemetry
from services.kit.core.idempotency import bind_key
from services.kit.messaging.envelope import Envelope

ELSEWHERE: Final = frozenset({Kind.UNAVAILABLE, Kind.OVERLOADED, Kind.INTERNAL, Kind.NOT_FOUND})
"""Failures of one replica that another may not share: classifying twice harms nothing."""

PATIENT: Final = frozenset({Kind.UNAVAILABLE, Kind.NOT_FOUND})
"""Of those, the ones that pass by themselves: a replica restarts, or has not loaded the version yet."""


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


async def classify(command: Classify, ports: Ports) -> Answer:
    """Answers with the version that the weights (or the sticky key) choose.

    A failing replica is left for another, a failing canary for the primary; where no replica is ready the
    request waits `ready_wait_seconds` for one. Raises UnknownDeployment, NothingServed, VersionNotServed,
    DeploymentNotReady, DeadlinePassed, and what the replica refuses.
    """
    started = ports.clock.monotonic()
    version, outcome = 0, "internal"
    try:
        answer = await _classify(command, ports)
        version, outcome = answer.version, "ok"
        spend(answer.tokens)
        return answer
    except Refusal as refusal:
        outcome = refusal.code
        raise
    finally:
        known = command.deployment if ports.routes.knows(command.tenant, command.deployment) else ""
        REQUESTS.add(1, tenant=command.tenant, deployment=known, version=version, outcome=outcome)
        REQUEST_SECONDS.record(ports.clock.monotonic() - started, tenant=command.tenant, deployment=known)


async def _classify(command: Classify, ports: Ports) -> Answer:
    check_texts(command.texts, limit_chars=ports.policy.text_limit_chars)
    check_request_id(command.request)
    check_sticky_key(command.sticky_key)
    if not ports.routes.knows(command.tenant, command.deployment):
        raise unknown(command.deployment, ports)
    ticket = sticky_ticket(command.deployment, command.sticky_key) if command.sticky_key else ports.generator.random()
    began = ports.clock.monotonic()
    give_up_at = min(command.deadline, began + ports.policy.ready_wait_seconds)
    attempts = _Attempts()
    while True:
        check_deadline(command.deadline, ports)
        choice = _choose(command, ticket, attempts, ports)
        if choice is None:
            await _wait_for_a_replica(command, attempts, give_up_at, ports)
            continue
        replica, version = choice
        try:
            answer = await _counted(command, replica, version, ports, began=began)
        except Refusal as refusal:
            if refusal.kind not in ELSEWHERE:
                raise
            attempts.note(replica, version, refusal)
            if attempts.hard_failures >= ports.policy.attempts:
                raise
            RETRIES.add(1, tenant=command.tenant, code=refusal.code)
            continue
        _mirror(command, answer.version, ports)
        return answer


def somebody_is_ready(command: Classify, ports: Ports) -> bool:
    """False where `classify` could only wait for a replica; true also where it refuses."""
    if not ports.routes.knows(command.tenant, command.deployment):
        return True
    try:
        return _choose(command, 0.0, _Attempts(), ports) is not None
    except Refusal:
        return True


def least_waiting(command: Classify, ports: Ports) -> int | None:
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


def _choose(command: Classify, ticket: float, attempts: _Attempts, ports: Ports) -> tuple[Replica, int] | None:
    plan = ports.routes.plan(command.tenant, command.deployment, ticket=ticket, version=command.version)
    now = ports.clock.monotonic()
    for version in plan.versions:
        without = {replica for replica, failed in attempts.failed if failed == version}
        replica = ports.routes.pick(plan.place, version, at=now, load=ports.replicas.waiting, without=without)
        if replica is not None:
            return replica, version
    return None


async def _wait_for_a_replica(command: Classify, attempts: _Attempts, give_up_at: float, ports: Ports) -> None:
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


async def _counted(command: Classify, replica: Replica, version: int, ports: Ports, *, began: float) -> Answer:
    """Asks, and remembers of the version how it went."""
    served = (command.tenant, command.deployment, version)
    asked = ports.clock.monotonic()
    try:
        answer = await _ask(command, replica, version, ports)
    except Refusal:
        ports.statistics.failed(served, seconds=ports.clock.monotonic() - asked)
        raise
    ports.statistics.answered(
        served,
        texts=len(command.texts),
        waited_seconds=asked - began,
        computed_seconds=ports.clock.monotonic() - asked,
        at=ports.clock.now(),
    )
    return answer


async def _ask(command: Classify, replica: Replica, version: int, ports: Ports) -> Answer:
    question = Question(
        tenant=command.tenant,
        deployment=command.deployment,
        version=version,
        request=command.request,
        texts=command.texts,
        traceparent=command.traceparent,
        deadline=command.deadline,
        with_embeddings=command.with_embeddings,
        whole=command.whole,
    )
    brought_by = ports.routes.claim_first(command.tenant, command.deployment, version)
    if brought_by is None:
        return await ports.replicas.ask(replica.id, question)
    try:
        return await _ask_first(question, replica, brought_by, ports)
    except BaseException:
        ports.routes.release_first(command.tenant, command.deployment, version)
        raise


async def _ask_first(question: Question, replica: Replica, brought_by: Mapping[str, str], ports: Ports) -> Answer:
    """Asks inside the trace of the rollout, so that its story ends with the first answer."""
    request_span = telemetry.current_span_context()
    attributes: dict[str, str | int | float | bool] = {
        "millrace.deployment": question.deployment,
        "millrace.version": question.version,
    }
    with telemetry.span(FIRST_REQUEST, parent=brought_by, attributes=attributes) as opened:
        if request_span.is_valid:
            opened.add_link(request_span)
        inside = telemetry.current_carrier().get("traceparent", question.traceparent)
        return await ports.replicas.ask(replica.id, replace(question, traceparent=inside))


def _mirror(command: Classify, answered_by: int, ports: Ports) -> None:
    version = ports.routes.mirror_of(command.tenant, command.deployment, answered_by, ticket=ports.generator.random())
    if version is None:
        return
    now, place = ports.clock.monotonic(), place_of(command.tenant, command.deployment)
    replica = ports.routes.pick(place, version, at=now, load=ports.replicas.waiting)
    if replica is not None:
        question = Question(
            tenant=command.tenant,
            deployment=command.deployment,
            version=version,
            request=command.request,
            texts=command.texts,
            traceparent=command.traceparent,
            deadline=command.deadline,
            mirrored=True,
        )
        ports.mirrors.send(replica.id, question)


async def embed_all(command: Classify, ports: Ports) -> Embedded:
    """The embeddings of any number of texts, all by one version: those of two could not be compared.

    They are asked for in chunks of `MAX_TEXTS`, `chunks_at_once` of them at a time. Raises what `classify` raises;
    a text is named by its place among all.
    """
    key = command.sticky_key or command.request
    chunks = [
        replace(chunk, sticky_key=key, with_embeddings=True, request=_chunk_name(command, place))
        for place, chunk in enumerate(_chunks(command))
    ]
    finished: list[Answer] = []
    answers = await _ask_chunks(dict(enumerate(chunks)), finished, ports)
    latest = finished[-1].version
    others = {place: answer for place, answer in answers.items() if answer.version != latest}
    if others:  # the version they went to first has gone meanwhile, or its weight has
        again = {place: replace(chunks[place], version=latest) for place in others}
        answers |= await _ask_chunks(again, finished, ports)
    return Embedded(
        deployment=command.deployment,
        version=latest,
        embeddings=tuple(vector for place in range(len(chunks)) for vector in answers[place].embeddings),
        tokens=sum(answer.tokens for answer in answers.values()),
    )


def _chunks(command: Classify) -> list[Classify]:
    starts = range(0, max(1, len(command.texts)), MAX_TEXTS)
    return [replace(command, texts=command.texts[start : start + MAX_TEXTS]) for start in starts]


def _chunk_name(command: Classify, place: int) -> str:
    return command.request if len(command.texts) <= MAX_TEXTS else f"{command.request}.{place}"


async def _ask_chunks(chunks: Mapping[int, Classify], finished: list[Answer], ports: Ports) -> dict[int, Answer]:
    """The answers by place; adds them to `finished` as they come. The first refusal ends the others."""
    turns = asyncio.Semaphore(ports.policy.chunks_at_once)

    async def ask(place: int, chunk: Classify) -> Answer:
        async with turns:
            try:
                answer = await classify(chunk, ports)
            except Refusal as refusal:
                raise moved(refusal, by=place * MAX_TEXTS) from refusal
        finished.append(answer)
        return answer

    tasks = [asyncio.create_task(ask(place, chunk)) for place, chunk in chunks.items()]
    try:
        return dict(zip(chunks, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def served(tenant: str, ports: Ports) -> tuple[Served, ...]:
    """What the tenant's deployments serve, from memory. Raises RoutesNotRead while that is not known."""
    if not ports.routes_read():
        raise RoutesNotRead(retry_after_seconds=ports.policy.retry_after_seconds)
    return ports.routes.served(tenant)


async def announce_dataset(event: DatasetReady, caller: Caller, ports: Ports) -> Accepted:
    """Publishes that a data set lies ready. Raises KeyReused or OutboxFull."""
    return await _accept(event, caller, ports)


async def send_feedback(event: FeedbackReceived, caller: Caller, ports: Ports) -> Accepted:
    """Publishes the right label of an answered request. Raises UnknownDeployment, KeyReused or OutboxFull."""
    if not ports.routes.knows(caller.tenant, event.deployment):
        raise unknown(event.deployment, ports)
    return await _accept(event, caller, ports)


async def _accept(event: Event, caller: Caller, ports: Ports) -> Accepted:
    """Event and receipt commit together, so a repeated key gives the first answer even after a crash."""
    asked = bind_key(
        caller.tenant, caller.idempotency_key, event.type_name().encode(), event.model_dump_json().encode()
    )
    async with ports.store.transaction() as tx:
        if asked is not None and (earlier := await tx.find_idempotent_response(asked)) is not None:
            return Accepted(*earlier.split(" "))
        waiting = await tx.waiting_events()
        if waiting >= ports.policy.outbox_limit:
            raise OutboxFull(waiting=waiting, retry_after_seconds=ports.policy.outbox_retry_seconds)
        event_id = await tx.emit(event, tenant=caller.tenant)
        accepted = Accepted(event_id=event_id, trace_id=telemetry.current_trace_id())
        if asked is not None:
            await tx.save_idempotent_response(asked, f"{accepted.event_id} {accepted.trace_id}")
        return accepted


def unknown(deployment: str, ports: Ports) -> Refusal:
    """Before the table is read, not to know a deployment says nothing about it."""
    if ports.routes_read():
        return UnknownDeployment(deployment=deployment)
    return RoutesNotRead(retry_after_seconds=ports.policy.retry_after_seconds)


async def follow_deployment(envelope: Envelope[DeploymentChanged], ports: Ports) -> None:
    """Takes the weights; a generation that is known already changes nothing."""
    ports.routes.deployment_changed(envelope.tenant, envelope.event, envelope.trace, at=envelope.time)


async def follow_replica(envelope: Envelope[ReplicaReported], ports: Ports) -> None:
    """Takes the report, keeps a line to each replica, and forgets those both silent and unreachable."""
    now = ports.clock.monotonic()
    ports.routes.replica_reported(envelope.event, at=now)
    for replica in ports.routes.replicas():
        if ports.routes.is_stale(replica, at=now) and ports.replicas.waiting(replica.id) is None:
            ports.routes.forget(replica.id)
    ports.replicas.keep(ports.routes.replicas())
