"""A stand-in for training: it reads the real files, takes virtual time, and its model knows what the data taught it."""

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from services.contracts.artifact import Precision, baseline_file, graph_file
from services.contracts.training import Comparison, Interval, Metrics, PairedCounts, SliceScore, VariantReport
from services.kit.core.clock import Clock
from services.kit.core.tabular import locate
from services.registry.errors import UnknownAlias, UnknownModel
from services.registry.handlers import versions
from services.registry.ports import Ports as RegistryPorts
from services.trainer.domain.datasets import Example
from services.trainer.domain.spec import (
    BASE,
    FEEDBACK,
    INTERRUPTED,
    ChampionRef,
    Failure,
    Handle,
    Progress,
    RunResult,
    Stage,
    TrainingSpec,
)
from services.trainer.errors import UnknownExecution
from services.trainer.ports import Execution, Outcome
from services.trainer.stages.folder import file_hash
from tests.e2e.virtual.artifact_store import InMemoryArtifactStore
from tests.e2e.virtual.corpus import LABELS, Skill, Text, Topic, embedding, make_text, read_text
from tests.e2e.virtual.engines import SKILL_FILE

STAGE_SECONDS: Final = 2.0
REFERENCE_ROWS: Final = 300
TEST_SHARE: Final = 3
"""One row in so many is for testing."""
KNOWN: Final = Skill(old=0.84, new=0.34)
TAUGHT: Final = Skill(old=0.83, new=0.74)
"""What a model knows after honest data without, and with, labelled texts of the new topic."""
TFIDF: Final = 0.70


@dataclass
class StandInExecution:
    """An attempt that goes on by itself as time passes."""

    handle: Handle
    spec: TrainingSpec
    started_at: datetime
    outcome: Outcome | None = None


class StandInTraining:
    """`Executor` of the trainer; runs no child process. `executions` outlives the service, as processes would."""

    def __init__(
        self, artifact_store: InMemoryArtifactStore, clock: Clock, executions: dict[str, StandInExecution]
    ) -> None:
        self._artifact_store = artifact_store
        self._clock = clock
        self._executions = executions

    async def submit(self, spec: TrainingSpec, attempt: int) -> Handle:
        where = {"executor": "stand-in", "working_uri": spec.working_uri, "reference": {}}
        handle = Handle.model_validate({**where, "tenant": spec.tenant, "run": spec.run, "attempt": attempt})
        self._executions.setdefault(handle.execution, StandInExecution(handle, spec, self._clock.now()))
        return handle

    async def attach(self, handle: Handle) -> None:
        if handle.execution not in self._executions:
            raise UnknownExecution(execution=handle.execution)

    async def poll(self, handle: Handle, progress_read: int) -> Execution:
        made = self._executions[handle.execution]
        elapsed = (self._clock.now() - made.started_at).total_seconds()
        reached = list(Stage)[: int(elapsed / STAGE_SECONDS) + 1]
        begun = [made.started_at + timedelta(seconds=STAGE_SECONDS * index) for index in range(len(reached))]
        progress = [
            Progress(at=at, stage=stage, fraction=0.0, message="began")
            for at, stage in zip(begun, reached, strict=True)
        ]
        if made.outcome is None and elapsed >= STAGE_SECONDS * len(Stage):
            made.outcome = await self._trained(made)
        now = self._clock.now()
        return Execution(made.started_at, now, progress[progress_read:], len(progress), made.outcome)

    async def cancel(self, handle: Handle) -> None:
        made = self._executions[handle.execution]
        made.outcome = made.outcome or Failure(stage=Stage.TRAIN, code=INTERRUPTED, reason="asked to", retryable=True)

    async def logs(self, handle: Handle, after: int, limit: int) -> list[str]:
        return []

    async def executions(self) -> Sequence[Handle]:
        return [made.handle for made in self._executions.values() if made.outcome is None]

    async def _trained(self, made: StandInExecution) -> RunResult:
        spec = made.spec
        data = Path(spec.data_uri.removeprefix("file://"))
        lesson = Lesson(
            _rows(data), _rows(Path(spec.feedback_uri.removeprefix("file://"))) if spec.feedback_uri else []
        )
        with tempfile.TemporaryDirectory() as folder:
            _write_artifact(Path(folder), lesson)
            artifact = await self._artifact_store.put(
                Path(folder), f"{spec.tenant}/{spec.model}/{made.handle.execution}"
            )
        return RunResult(
            run=spec.run,
            data_hash=file_hash(data),
            base_model="stand-in",
            labels=list(LABELS),
            metrics=lesson.metrics(),
            variants=[_variant(precision, lesson) for precision in (Precision.FP32, Precision.INT8)],
            comparison=await self._compared(spec.champion, lesson),
            artifact=artifact,
            seconds=dict.fromkeys(Stage, STAGE_SECONDS),
        )

    async def _compared(self, champion: ChampionRef | None, lesson: "Lesson") -> Comparison | None:
        if champion is None:
            return None
        theirs = Skill.from_json(await self._artifact_store.read(champion.artifact, SKILL_FILE))
        slices = [lesson.paired(name, theirs) for name in ("all", BASE, FEEDBACK)]
        return Comparison(champion=champion.version, slices=[part for part in slices if part is not None])


class InlineInputs:
    """`RunInputs` of the trainer, on the same thread."""

    def __init__(self, folder: Path, roots: Sequence[Path]) -> None:
        self._folder = folder
        self._roots = roots

    async def data(self, tenant: str, uri: str) -> str:
        return locate(uri, self._roots).as_uri()

    async def write_examples(self, run: str, examples: Sequence[Example]) -> str:
        path = self._folder / f"{run}.jsonl"
        path.write_text("".join(json.dumps({"text": one.text, "label": one.label}) + "\n" for one in examples))
        return path.as_uri()

    def working_uri(self, run: str) -> str:
        return (self._folder / run).as_uri()

    def artifact_store(self) -> str:
        return "shelf"


class Lesson:
    """What a run learns from: the rows of the data set and labelled traffic, each a text and the label it carries."""

    def __init__(self, base: Sequence[tuple[Text, str]], feedback: Sequence[tuple[Text, str]]) -> None:
        rows = [*base, *feedback]
        honesty = sum(label == text.label for text, label in rows) / len(rows)
        best = TAUGHT if feedback else KNOWN
        self.skill = Skill(old=best.old * honesty, new=best.new * honesty)
        self.new_share = sum(text.topic is Topic.NEW for text, _ in feedback) / len(feedback) if feedback else 0.0
        self._learned = len(rows) * (TEST_SHARE - 1) // TEST_SHARE
        self._tests = {
            "all": [text for text, _ in rows[::TEST_SHARE]],
            BASE: [text for text, _ in base[::TEST_SHARE]],
            FEEDBACK: [text for text, _ in feedback[::TEST_SHARE]],
        }

    def metrics(self) -> Metrics:
        parts = [self._score(name, texts) for name, texts in self._tests.items() if texts]
        return Metrics(slices=parts, tfidf_macro_f1=TFIDF, train_rows=self._learned, test_rows=len(self._tests["all"]))

    def _score(self, name: str, texts: Sequence[Text]) -> SliceScore:
        share = sum(self.skill.knows(text) for text in texts) / len(texts)
        interval = Interval(low=max(0.0, share - 0.05), high=min(1.0, share + 0.05))
        return SliceScore(name=name, rows=len(texts), accuracy=share, macro_f1=share, macro_f1_ci95=interval)

    def paired(self, name: str, theirs: Skill) -> PairedCounts | None:
        texts = self._tests[name]
        answers = [(self.skill.knows(text), theirs.knows(text)) for text in texts]
        if not answers:
            return None
        return PairedCounts(
            name=name,
            both=answers.count((True, True)),
            candidate_only=answers.count((True, False)),
            champion_only=answers.count((False, True)),
            neither=answers.count((False, False)),
        )


class RegistryChampions:
    """`Champions` of the trainer: the registry's own use case, without the wire between."""

    def __init__(self, ports: Callable[[], RegistryPorts], tenant: str) -> None:
        """`ports` gives the registry as it stands: it may have been restarted."""
        self._ports = ports
        self._tenant = tenant

    async def champion(self, tenant: str, model: str) -> ChampionRef | None:
        try:
            match = (await versions.get_model(self._tenant, model, self._ports())).resolve("@champion")
        except (UnknownModel, UnknownAlias):
            return None
        return ChampionRef(version=match.number, artifact=match.artifact, precision=match.precision)


def _rows(path: Path) -> list[tuple[Text, str]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [(read_text(record["text"]), record["label"]) for record in records]


def _variant(precision: Precision, lesson: Lesson) -> VariantReport:
    score = lesson.metrics().overall().macro_f1
    small = precision is Precision.INT8
    return VariantReport(
        precision=precision,
        size_bytes=23_000_000 if small else 90_000_000,
        macro_f1=score,
        agreement=0.99 if small else 1.0,
        max_difference=1e-6,
        speedup=2.5 if small else 1.0,
        passed=True,
    )


def _write_artifact(folder: Path, lesson: Lesson) -> None:
    """The baseline has the topics of the traffic that the model was taught with."""
    new = round(REFERENCE_ROWS * lesson.new_share)
    topics = [Topic.NEW] * new + [Topic.OLD] * (REFERENCE_ROWS - new)
    texts = [make_text(topic, f"reference:{number}") for number, topic in enumerate(topics)]
    rows_RD = np.stack([embedding(text.body) for text in texts])
    (folder / SKILL_FILE).write_bytes(lesson.skill.to_json())
    for precision in (Precision.FP32, Precision.INT8):
        buffer = io.BytesIO()
        np.save(buffer, rows_RD, allow_pickle=False)
        (folder / baseline_file(precision)).write_bytes(buffer.getvalue())
        (folder / graph_file(precision)).write_bytes(f"stand-in for a graph in {precision}".encode())
