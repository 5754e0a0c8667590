"""Runs the stages of one run folder in order, skips what is done, and leaves a result or a failure behind.

What goes wrong reaches the user as a code and a sentence; the trace goes to the run's log.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from services.contracts.errors import MillraceError
from services.kit.storage.artifacts import ArtifactStore
from services.trainer.domain.spec import (
    FAILURE_FILE,
    INTERRUPTED,
    RESULT_FILE,
    RUN_FILE,
    SPEC_FILE,
    ExitCode,
    Failure,
    RunResult,
    Stage,
    TrainingSpec,
)
from services.trainer.errors import Interrupted, OutOfMemory, QualityRefused
from services.trainer.stages.base_model import find_base_model
from services.trainer.stages.folder import F, RunFolder
from services.trainer.stages.inputs import localise
from services.trainer.stages.prepare import Prepared, prepare, prepare_inputs
from services.trainer.stages.spec import RunSpec
from services.trainer.stages.stopping import Stopping, watch_memory
from services.trainer.stages.tracing import stage_span

if TYPE_CHECKING:
    from services.trainer.stages.evaluate import Evaluated
    from services.trainer.stages.export import Exported

log: Final = logging.getLogger("millrace.run")
T = TypeVar("T")


class Runner:
    """One run, from whatever stage it has reached."""

    def __init__(self, folder: RunFolder, stopping: Stopping, artifacts: ArtifactStore, artifact_name: str) -> None:
        """The artifact will be put into the store under the name, which no other attempt has."""
        self.folder = folder
        self.artifacts = artifacts
        self.artifact_name = artifact_name
        self.stopping = stopping
        self.stage = Stage.PREPARE
        self.seconds: dict[Stage, float] = {}

    def run(self) -> ExitCode:
        """Never raises; the exit code, `result.json` or `failure.json` tell how it went."""
        try:
            (self.folder / FAILURE_FILE).unlink(missing_ok=True)
            spec = self._spec()
            if spec.limits.memory_mib is not None:
                watch_memory(spec.limits.memory_mib, self._outgrown)
            result = self._stages(spec)
        except Interrupted:
            log.info("asked to stop in %s", self.stage)
            return self._fail_interrupted()
        except MillraceError as error:
            log.warning("%s refused: %s", self.stage, error)
            return self._fail(error)
        except MemoryError:
            log.exception("out of memory in %s", self.stage)
            return self._fail(OutOfMemory())
        except Exception as error:  # the process ends here: the failure is told, the trace is logged
            log.exception("%s broke off", self.stage)
            return self._fail_internally(error)
        self.folder.write(RESULT_FILE, result.model_dump_json(indent=1).encode())
        return ExitCode.SUCCEEDED

    def _spec(self) -> RunSpec:
        """With everything on this machine's disk."""
        if not (self.folder / RUN_FILE).exists():
            by_address = TrainingSpec.model_validate_json((self.folder / SPEC_FILE).read_bytes())
            local = localise(by_address, self.artifacts)
            self.folder.write(RUN_FILE, local.model_dump_json(indent=1).encode())
        return self.folder.spec()

    def _stages(self, spec: RunSpec) -> RunResult:
        prepared = self._stage(Stage.PREPARE, prepare_inputs(spec), Prepared, lambda: prepare(self.folder, spec))
        # torch and ONNX Runtime are loaded only for data that is fit to train on
        from services.trainer.stages import evaluate, export, train

        trained = self._stage(
            Stage.TRAIN,
            train.train_inputs(spec, prepared),
            train.Trained,
            lambda: train.train(self.folder, spec, prepared, self.stopping),
        )
        evaluated = self._stage(
            Stage.EVALUATE,
            evaluate.evaluate_inputs(spec, trained),
            evaluate.Evaluated,
            lambda: evaluate.evaluate(self.folder, spec, prepared, trained),
        )
        exported = self._stage(
            Stage.EXPORT,
            export.export_inputs(spec, evaluated),
            export.Exported,
            lambda: export.export(self.folder, spec, prepared, evaluated),
        )
        return self._deliver(spec, prepared, evaluated, exported)

    def _deliver(self, spec: RunSpec, prepared: Prepared, evaluated: "Evaluated", exported: "Exported") -> RunResult:
        """From the exported graph to the whole artifact, and what is told of it."""
        from services.trainer.stages import compress, package, publish

        compressed = self._stage(
            Stage.COMPRESS,
            compress.compress_inputs(spec, exported),
            compress.Compressed,
            lambda: compress.compress(self.folder, spec, prepared, exported),
        )
        packaged = self._stage(
            Stage.PACKAGE,
            package.package_inputs(spec, evaluated, compressed),
            package.Packaged,
            lambda: package.package(self.folder, spec, prepared, evaluated, compressed),
        )
        published = self._stage(
            Stage.PUBLISH,
            publish.publish_inputs(packaged, self.artifact_name),
            publish.Published,
            lambda: publish.publish(self.folder, spec, packaged, self.artifacts, self.artifact_name),
        )
        return RunResult(
            run=spec.run,
            data_hash=prepared.data_hash,
            content=prepared.content,
            base_model=find_base_model(spec.base_model).name,
            labels=prepared.labels,
            metrics=packaged.metrics,
            variants=compressed.variants,
            comparison=packaged.comparison,
            artifact=published.artifact,
            seconds=self.seconds,
        )

    def _stage(self, stage: Stage, inputs: str, kind: type[F], work: Callable[[], F]) -> F:
        """What the stage left behind: by an earlier process on the same inputs, or now."""
        self.stopping.check()
        self.stage = stage
        done = self.folder.cached_result(stage, inputs, kind)
        if done is not None:
            log.info("%s is done already", stage)
            return done
        started = self.folder.clock.monotonic()
        self.folder.report(stage, 0.0, "began")
        with stage_span(stage, self.folder.spec().run):
            finished = work()
        self.folder.keep(stage, finished)
        self.seconds[stage] = self.folder.clock.monotonic() - started
        self.folder.report(stage, 1.0, "done", {"seconds": self.seconds[stage]})
        return finished

    def _fail(self, error: MillraceError) -> ExitCode:
        row = error.details.get("row")
        failure = Failure(
            stage=self.stage,
            code=error.code,
            reason=str(error),
            field=error.field,
            hint=error.hint,
            row=row if isinstance(row, int) else None,
            retryable=error.retryable,
        )
        self.folder.write(FAILURE_FILE, failure.model_dump_json(indent=1).encode())
        if isinstance(error, OutOfMemory):
            return ExitCode.OUT_OF_MEMORY
        return ExitCode.QUALITY_REFUSED if isinstance(error, QualityRefused) else ExitCode.DATA_REFUSED

    def _fail_interrupted(self) -> ExitCode:
        reason = "the run was asked to stop, and goes on from its checkpoint"
        failure = Failure(stage=self.stage, code=INTERRUPTED, reason=reason, retryable=True)
        self.folder.write(FAILURE_FILE, failure.model_dump_json(indent=1).encode())
        return ExitCode.INTERRUPTED

    def _fail_internally(self, error: Exception) -> ExitCode:
        if "can't allocate memory" in str(error) or "bad_alloc" in str(error):  # how torch and ONNX Runtime say it
            return self._fail(OutOfMemory())
        failure = Failure(
            stage=self.stage,
            code="internal",
            reason="the run stopped on an error of its own; its log has the trace",
            retryable=True,
        )
        with suppress(OSError):  # a full disk is one of the errors that lead here
            self.folder.write(FAILURE_FILE, failure.model_dump_json(indent=1).encode())
        return ExitCode.INTERNAL

    def _outgrown(self) -> None:
        """From the memory watch's own thread, while the run is busy: nothing but ending the process is sure to help."""
        log.error("resident memory grew over the limit in %s", self.stage)
        os._exit(self._fail(OutOfMemory()))
