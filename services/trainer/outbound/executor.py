"""`trainer.ports.Executor` by child processes on this machine: torch lives there, and only while a run does.

A child leads a session of its own and outlives the service that started it. What is known of it lies in its folder:
a lock that it holds while it lives (so that it is never started twice), its handle, its progress, its outcome.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from services.contracts.errors import Unavailable
from services.kit.core import telemetry
from services.kit.core.clock import Clock
from services.kit.core.log import logger
from services.kit.core.tabular import local_path
from services.trainer.domain.spec import (
    EXECUTION_VARIABLE,
    FAILURE_FILE,
    INTERRUPTED,
    KEYS_VARIABLE,
    LOG_FILE,
    PROGRESS_FILE,
    RESULT_FILE,
    SPEC_FILE,
    TRACES_VARIABLE,
    Failure,
    Handle,
    RunResult,
    Stage,
    TrainingSpec,
)
from services.trainer.errors import UnknownExecution
from services.trainer.outbound import workspace
from services.trainer.outbound.processes import ProcessIdentity, kill_marked, leader_of, this_boot
from services.trainer.outbound.workspace import CANCELLED_FILE, HANDLE_FILE, Workspace, is_locked
from services.trainer.ports import Execution, Outcome

LOCAL: Final = "local"
SUBMIT_SECONDS: Final = 15.0
END_SECONDS: Final = 5.0
"""After SIGKILL; the kernel may have much memory to give back."""
LOOK_SECONDS: Final = 0.05
_PROGRESS_FROM: Final = "progress_from"


class CannotSubmit(Unavailable):
    """No attempt at {run} can be started now: {problem}."""


CHILD: Final = (sys.executable, "-m", "services.trainer.stages")


@dataclass(frozen=True)
class LocalPolicy:
    """What every child process of this installation is given."""

    threads: int
    stop_seconds: float
    """To write its checkpoint when it is asked to stop."""
    run_folder_limit: int
    traces_folder: Path
    keys_folder: Path
    command: Sequence[str] = CHILD
    """Started with the attempt's folder as its argument."""


class LocalExecutor:
    def __init__(self, folders: Workspace, policy: LocalPolicy, clock: Clock) -> None:
        self._workspace = folders
        self._policy = policy
        self._clock = clock
        self._children: dict[int, _Child] = {}
        """Only so that their exit codes are taken, and no zombie is left while this process lives."""
        self._starting = threading.Lock()
        self._closed = False

    async def submit(self, spec: TrainingSpec, attempt: int) -> Handle:
        deadline = self._clock.monotonic() + SUBMIT_SECONDS
        await asyncio.to_thread(self._workspace.tidy, spec.run, self._policy.run_folder_limit)
        while True:
            handle = await asyncio.to_thread(self._submit, spec, attempt, telemetry.current_carrier())
            if handle is not None:
                return handle
            if self._clock.monotonic() > deadline:
                raise CannotSubmit(run=spec.run, problem="another process is about to")
            await self._clock.sleep(LOOK_SECONDS)

    async def attach(self, handle: Handle) -> None:
        folder = _folder(handle)
        if handle.executor != LOCAL or not await asyncio.to_thread((folder / SPEC_FILE).exists):
            raise UnknownExecution(execution=handle.execution)

    async def poll(self, handle: Handle, progress_read: int) -> Execution:
        return await asyncio.to_thread(self._poll, handle, progress_read)

    async def cancel(self, handle: Handle) -> None:
        """SIGTERM to the child, time for its checkpoint, then SIGKILL to all that carries its mark."""
        folder, leader = _folder(handle), ProcessIdentity.from_reference(handle.reference)
        with suppress(FileNotFoundError):
            await asyncio.to_thread((folder / CANCELLED_FILE).touch)
        leader.send(signal.SIGTERM)
        if not await self._comes_true(lambda: not leader.lives(), self._policy.stop_seconds):
            leader.send_group(signal.SIGKILL)
        await asyncio.to_thread(kill_marked, EXECUTION_VARIABLE, handle.execution)
        if not await self._comes_true(lambda: not leader.lives() and not is_locked(folder), END_SECONDS):
            logger.warning("%s has not ended: its process is not in reach of this one", handle.execution)

    async def logs(self, handle: Handle, after: int, limit: int) -> list[str]:
        return await asyncio.to_thread(workspace.log_lines, _folder(handle), after, limit)

    async def executions(self) -> Sequence[Handle]:
        return await asyncio.to_thread(self._executions)

    async def end_all(self) -> None:
        """Cancels everything that is under way, and starts nothing any more."""
        await asyncio.to_thread(self._close)
        await asyncio.gather(*(self.cancel(handle) for handle in await self.executions()))

    async def _comes_true(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = self._clock.monotonic() + seconds
        while not await asyncio.to_thread(condition):
            if self._clock.monotonic() > deadline:
                return False
            await self._clock.sleep(LOOK_SECONDS)
            self._reap()
        return True

    # --- on a thread

    def _close(self) -> None:
        with self._starting:  # what is being started now is seen by whoever looks next
            self._closed = True

    def _submit(self, spec: TrainingSpec, attempt: int, trace: dict[str, str]) -> Handle | None:
        """None while it cannot be told what another process has started."""
        with self._workspace.submitting(spec.run) as alone:
            if not alone:
                return None
            folder = self._workspace.attempt_folder(spec.run, attempt)
            if (folder / HANDLE_FILE).exists() or is_locked(folder):
                return _handle_in(folder)
            self._workspace.begin_attempt(spec, attempt)
            with self._starting:
                if self._closed:
                    raise CannotSubmit(run=spec.run, problem="the service stops")
                child = self._spawn(folder, f"{spec.run}.{attempt}", trace)
            return _write_handle(folder, spec, child) if child is not None else None

    def _spawn(self, folder: Path, execution: str, trace: dict[str, str]) -> ProcessIdentity | None:
        """None while another process has the folder's lock, if only to look at it."""
        with workspace.locked(folder) as lock, (folder / LOG_FILE).open("ab") as log:
            if lock is None:
                return None
            try:
                process = _Child(
                    [*self._policy.command, str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment(execution, trace),
                    start_new_session=True,
                    pass_fds=(lock,),
                )
            except OSError as error:
                raise CannotSubmit(run=execution, problem=error.strerror) from error
        self._children[process.pid] = process
        return ProcessIdentity.of(process.pid) or ProcessIdentity(process.pid, this_boot(), "")

    def _environment(self, execution: str, trace: dict[str, str]) -> dict[str, str]:
        # The services' thrifty allocator gives memory back after every step, and takes a third of the run's time.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        return {
            **inherited,
            **{name.upper(): value for name, value in trace.items()},
            EXECUTION_VARIABLE: execution,
            TRACES_VARIABLE: str(self._policy.traces_folder),
            KEYS_VARIABLE: str(self._policy.keys_folder),
            "OMP_NUM_THREADS": str(self._policy.threads),
            "OMP_WAIT_POLICY": "passive",
        }

    def _poll(self, handle: Handle, progress_read: int) -> Execution:
        self._reap()
        folder, leader = _folder(handle), ProcessIdentity.from_reference(handle.reference)
        leads = leader.lives()  # before the files: what it leaves behind, it leaves before it ends
        if not leads:
            kill_marked(EXECUTION_VARIABLE, handle.execution)
        under_way = leads or is_locked(folder)
        progress_from = int(handle.reference[_PROGRESS_FROM])
        read = workspace.read_progress(folder, progress_from + progress_read)
        started = _modified(folder / HANDLE_FILE) or self._clock.now()
        return Execution(
            started_at=started,
            active_at=max(started, _modified(folder / PROGRESS_FILE) or started),
            progress=read.steps,
            progress_read=read.offset - progress_from,
            outcome=None if under_way or read.more else _outcome(folder, leader),
        )

    def _executions(self) -> list[Handle]:
        matches = (_handle_in(folder) for folder in self._workspace.attempts() if is_locked(folder))
        return [handle for handle in matches if handle is not None]

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                self._children.pop(pid, None)


class _Child(subprocess.Popen[bytes]):
    """One that is meant to go on when nobody here holds it any more: that is no leak to be warned of."""

    def __del__(self) -> None:
        return


def _handle_in(folder: Path) -> Handle | None:
    """As it was written; else made anew, where a service was killed between starting a child and writing it down."""
    path = folder / HANDLE_FILE
    if path.exists():
        return Handle.model_validate_json(path.read_bytes())
    spec = TrainingSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
    leader = leader_of(EXECUTION_VARIABLE, f"{spec.run}.{workspace.attempt_number(folder)}")
    return _write_handle(folder, spec, leader) if leader is not None else None


def _write_handle(folder: Path, spec: TrainingSpec, child: ProcessIdentity) -> Handle:
    handle = Handle(
        executor=LOCAL,
        tenant=spec.tenant,
        run=spec.run,
        attempt=workspace.attempt_number(folder),
        working_uri=folder.as_uri(),
        reference={**child.reference(), _PROGRESS_FROM: str(workspace.progress_from(folder))},
    )
    workspace.replace_file(folder / HANDLE_FILE, handle.model_dump_json(indent=1))
    return handle


def _folder(handle: Handle) -> Path:
    folder = local_path(handle.working_uri)
    if folder is None:
        raise UnknownExecution(execution=handle.execution)
    return folder


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None


def _outcome(folder: Path, leader: ProcessIdentity) -> Outcome:
    """What the child left behind or, when it could leave nothing, what is known of its end."""
    if (folder / RESULT_FILE).exists():
        return RunResult.model_validate_json((folder / RESULT_FILE).read_bytes())
    if (folder / FAILURE_FILE).exists():
        return Failure.model_validate_json((folder / FAILURE_FILE).read_bytes())
    last = workspace.last_progress(folder)
    stage = last.stage if last is not None else Stage.PREPARE
    if (folder / CANCELLED_FILE).exists():
        return Failure(stage=stage, code=INTERRUPTED, reason="the attempt was asked to stop", retryable=True)
    if leader.boot != this_boot():
        return Failure(stage=stage, code=INTERRUPTED, reason="the machine was restarted", retryable=True)
    reason = "the run's process ended without an outcome: it was killed; its log may have more"
    return Failure(stage=stage, code="killed", reason=reason, retryable=True)
