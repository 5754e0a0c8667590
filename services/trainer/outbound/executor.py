"""`trainer.ports.Executor` by child processes on this machine: torch lives there, and only while a run does."""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.kit import telemetry
from services.kit.artifacts import ArtifactStore
from services.kit.rows import MissingFile, UnusableData, locate
from services.kit.uploads import UnknownUpload, UploadStore
from services.trainer.domain.spec import (
    ARTIFACT_FOLDER,
    FAILURE_FILE,
    LOG_FILE,
    PARENT_VARIABLE,
    PROGRESS_FILE,
    RESULT_FILE,
    TRACES_VARIABLE,
    Champion,
    ExitCode,
    Failure,
    Limits,
    Progress,
    RunResult,
    RunSpec,
    Stage,
)
from services.trainer.outbound.workspace import CHAMPION_FOLDER, DATA_FILE, Workspace
from services.trainer.ports import Assignment, Finished, Outcome, Tell

POLL_SECONDS: Final = 0.2


@dataclass(frozen=True)
class RunPolicy:
    """What every run of this installation is given."""

    roots: Sequence[Path]
    base_model: str
    limits: Limits
    threads: int
    checkpoint_steps: int
    frozen_layers: int
    stop_seconds: float
    runs_kept: int
    traces_folder: Path


class ChildProcesses:
    """One process a run. It dies with this one, and leaves a checkpoint when it is told to stop."""

    def __init__(self, workspace: Workspace, artifacts: ArtifactStore, uploads: UploadStore, policy: RunPolicy) -> None:
        self._workspace = workspace
        self._artifacts = artifacts
        self._uploads = uploads
        self._policy = policy

    async def run(self, assignment: Assignment, tell: Tell) -> Outcome:
        try:
            spec = await self._spec(assignment)
        except UnusableData as refused:
            return Failure(stage=Stage.PREPARE, code=refused.code, reason=str(refused), retryable=False)
        folder = await asyncio.to_thread(self._workspace.begin_attempt, spec, assignment.fence)
        code = await self._run_child(folder, tell)
        if code != ExitCode.SUCCEEDED:
            return await asyncio.to_thread(_failure, folder, code)
        result = RunResult.model_validate_json(await asyncio.to_thread((folder / RESULT_FILE).read_bytes))
        name = f"{assignment.tenant}/{spec.model}/{spec.run}.{assignment.fence}"
        with telemetry.span("put artifact", attributes={"millrace.run.id": spec.run}):
            return Finished(result, await self._artifacts.put(folder / ARTIFACT_FOLDER, name))

    async def lines(self, tenant: str, run: str, after: int) -> list[str]:
        """`trainer.ports.RunLogs`; the caller has made sure that the run is the tenant's."""
        return await asyncio.to_thread(self._workspace.log_lines, run, after)

    async def _spec(self, assignment: Assignment) -> RunSpec:
        """The run's spec; the first attempt fixes it, the champion of that moment included."""
        policy, dataset = self._policy, assignment.dataset
        await asyncio.to_thread(self._workspace.tidy, assignment.run, policy.runs_kept)
        data = await self._data(assignment)
        fixed = await asyncio.to_thread(self._workspace.spec, assignment.run)
        if fixed is not None:
            return fixed
        champion = None
        if assignment.champion is not None:
            cache = self._workspace.run_folder(assignment.run) / CHAMPION_FOLDER
            kept = await self._artifacts.fetch(assignment.champion.artifact, cache)
            champion = Champion(
                version=assignment.champion.version, folder=kept, precision=assignment.champion.precision
            )
        examples = None
        if assignment.examples:
            examples = await asyncio.to_thread(self._workspace.write_examples, assignment.run, assignment.examples)
        spec = RunSpec(
            run=assignment.run,
            model=dataset.model,
            dataset=dataset.dataset,
            data=data,
            format=dataset.format,
            content_hash=dataset.content_hash,
            columns=dataset.columns,
            feedback=examples,
            recipe=dataset.recipe,
            base_model=policy.base_model,
            champion=champion,
            limits=policy.limits,
            threads=policy.threads,
            checkpoint_steps=policy.checkpoint_steps,
            frozen_layers=policy.frozen_layers,
        )
        await asyncio.to_thread(self._workspace.fix_spec, spec)
        return spec

    async def _data(self, assignment: Assignment) -> Path:
        """The data set's file: under a root, among the tenant's own uploads, or fetched from where those lie.

        Raises OutsideRoots, MissingFile, UnsupportedAddress; UploadStoreDown.
        """
        uri, mine = assignment.dataset.uri, self._uploads.folder_of(assignment.tenant)
        if not self._uploads.holds(uri, assignment.tenant):
            roots = (*self._policy.roots, mine) if mine is not None else self._policy.roots
            return await asyncio.to_thread(locate, uri, roots)
        fetched = self._workspace.run_folder(assignment.run) / DATA_FILE
        if not fetched.exists():
            try:
                await self._uploads.fetch(uri, fetched)
            except UnknownUpload as error:
                raise MissingFile from error
        return fetched

    async def _run_child(self, folder: Path, tell: Tell) -> int:
        """The exit code; negative for a signal."""
        with (folder / LOG_FILE).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.trainer.stages",
                str(folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        ending = asyncio.ensure_future(process.wait())
        progress = _Tail(folder / PROGRESS_FILE)
        try:
            while not ending.done():
                await asyncio.wait({ending}, timeout=POLL_SECONDS)
                for step in progress.new():
                    await tell(step)
        finally:
            await self._stop(process)
        return ending.result()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """Time to write its checkpoint, then the end; nothing when it has ended."""
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.stop_seconds):
                await process.wait()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _environment(self) -> dict[str, str]:
        trace = {name.upper(): value for name, value in telemetry.current_carrier().items()}
        # The services' thrifty allocator gives memory back after every step, and takes a third of the run's time.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        return {
            **inherited,
            **trace,
            PARENT_VARIABLE: str(os.getpid()),
            TRACES_VARIABLE: str(self._policy.traces_folder),
            "OMP_NUM_THREADS": str(self._policy.threads),
            "OMP_WAIT_POLICY": "passive",
        }


class _Tail:
    """Reads the complete lines that were appended since the last look; what an earlier attempt told is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0

    def new(self) -> list[Progress]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        complete = content[: content.rfind(b"\n") + 1]
        self._read += len(complete)
        return [Progress.model_validate_json(line) for line in complete.splitlines()]


def _failure(folder: Path, code: int) -> Failure:
    """What the child left behind, or, when it could leave nothing, how it ended."""
    path = folder / FAILURE_FILE
    if path.exists():
        return Failure.model_validate_json(path.read_bytes())
    lines = (folder / PROGRESS_FILE).read_bytes().splitlines() if (folder / PROGRESS_FILE).exists() else []
    stage = Progress.model_validate_json(lines[-1]).stage if lines else Stage.PREPARE
    if code == ExitCode.INTERRUPTED:
        return Failure(stage=stage, code="interrupted", reason="the run was told to stop", retryable=True)
    if code < 0:
        reason = f"the run's process was killed by signal {-code}"
        return Failure(stage=stage, code="killed", reason=reason, retryable=True)
    reason = "the run's process ended without telling why; its log has more"
    return Failure(stage=stage, code="internal", reason=reason, retryable=True)
