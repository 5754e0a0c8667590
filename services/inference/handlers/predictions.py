"""Predictions: what a loaded version answers to the requests of any task, and what is logged of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from services.contracts.errors import Kind, MillraceError
from services.contracts.names import DEFAULT_TENANT
from services.contracts.tasks.errors import TaskNotServed
from services.contracts.tasks.records import Source
from services.contracts.tasks.registry import AnyTask
from services.contracts.tasks.stream import Delta, PredictEvent, Result
from services.contracts.tasks.task import AnswerInfo, RequestLimits, StreamingTask
from services.inference.domain.records import LoggedRequest, record_of
from services.inference.domain.scoring import Chunk, Done, EngineRequest
from services.inference.domain.versions import ActualVersion
from services.inference.errors import EngineFailed
from services.inference.ports import Ports
from services.kit.core import telemetry


@dataclass(frozen=True, slots=True)
class Predict:
    """One request of a task. `version` 0 asks for the deployment's primary; `deadline` is in monotonic seconds."""

    deployment: str
    task: str
    payload: bytes
    deadline: float
    request: str = ""
    version: int = 0
    source: Source = Source.LIVE
    tenant: str = DEFAULT_TENANT
    model: str = ""
    """Whose version is meant; the deployment's where it is empty."""


async def predict(command: Predict, ports: Ports) -> AsyncGenerator[PredictEvent, None]:
    """Answers with a loaded version: deltas, if its task has any, and a result; and logs what came of it.

    Raises UnknownTask, TaskNotServed, what the task refuses, UnknownDeployment, VersionNotServed, QueueFull,
    DeadlinePassed, EngineFailed.
    """
    task = ports.tasks.named(command.task)
    request = task.decode(command.payload)
    actual = ports.models.route(command.deployment, command.version, command.tenant, model=command.model)
    loaded = ports.engines.loaded(actual.key)
    if task.name not in loaded.tasks:
        served = ", ".join(sorted(loaded.tasks))
        raise TaskNotServed(task=task.name, deployment=command.deployment, served=served)
    characters = loaded.max_length * ports.bounds.characters_per_token
    task.check(request, RequestLimits(characters=characters, tokens=loaded.max_length))
    served_by = _Serving(command, task, request, actual, ports)
    ports.models.enter(actual.key)
    try:
        async with aclosing(ports.engines.submit(EngineRequest(actual.key, task, request, command.deadline))) as events:
            async for event in events:
                if isinstance(event, Done):
                    yield served_by.answered(event)
                    return
                yield served_by.chunk(event)
        raise EngineFailed
    except MillraceError as error:
        served_by.refused(error)
        raise
    finally:
        ports.models.exit(actual.key, ports.clock.monotonic())


class _Serving:
    """One request under way on a version: what becomes of it is counted, and logged where it says something of it."""

    def __init__(self, command: Predict, task: AnyTask, request: Any, actual: ActualVersion, ports: Ports) -> None:
        self._command = command
        self._task = task
        self._request = request
        self._id = command.request or ports.ids.new("request")
        self._held = actual
        self._ports = ports
        self._started = ports.clock.monotonic()

    def chunk(self, event: Chunk) -> Delta:
        """Raises EngineFailed where the task's answers come in one piece."""
        if not isinstance(self._task, StreamingTask):
            raise EngineFailed
        return Delta(self._task.encode_chunk(event.chunk))

    def answered(self, done: Done) -> Result:
        model, version = self._held.desired.model, self._held.key.version
        self._observe("ok")
        self._log(done)
        info = AnswerInfo(self._id, self._command.deployment, model, version, done.tokens)
        return Result(self._task.encode_result(done.result, info), model, version, done.tokens)

    def refused(self, error: MillraceError) -> None:
        """Only a fault of the version is held against it: not its callers' mistakes, nor a queue or a deadline."""
        self._observe(error.code)
        if error.kind is Kind.INTERNAL:
            self._log(None)

    def _observe(self, outcome: str) -> None:
        command, seconds = self._command, self._ports.clock.monotonic() - self._started
        self._ports.observe(command.tenant, command.deployment, self._held.key.version, outcome, seconds)

    def _log(self, done: Done | None) -> None:
        ports, command = self._ports, self._command
        record = record_of(
            self._task,
            self._request,
            done,
            request_id=self._id,
            version=self._held.key.version,
            variant=self._held.key.precision,
            source=command.source,
            at=ports.clock.now(),
            latency_ms=(ports.clock.monotonic() - self._started) * 1000,
            sampling=ports.sampling,
        )
        ports.log.add(
            LoggedRequest(
                deployment=command.deployment,
                model=self._held.desired.model,
                task=self._task.name,
                record=record,
                trace=telemetry.current_carrier().get("traceparent", ""),
                tenant=command.tenant,
            )
        )
