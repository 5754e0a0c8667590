"""A stand-in for training: it reads the real files, takes virtual time, and its model knows what the data taught it."""

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.contracts.artifact import Precision, baseline_file, graph_file
from services.contracts.training import Comparison, Interval, Metrics, PairedCounts, SliceScore, VariantReport
from services.kit.clock import Clock
from services.kit.rows import UnusableData, locate
from services.registry import handlers as registry
from services.registry.errors import UnknownAlias, UnknownModel
from services.registry.ports import Ports as RegistryPorts
from services.trainer.domain.spec import BASE, FEEDBACK, Failure, Progress, RunResult, Stage
from services.trainer.ports import Assignment, Champion, Finished, Outcome, Tell
from services.trainer.stages.folder import file_hash
from tests.e2e.virtual.engines import SKILL_FILE
from tests.e2e.virtual.shelf import Shelf
from tests.e2e.virtual.world import LABELS, Skill, Text, Topic, embedding, make_text, read_text

STAGE_SECONDS: Final = 2.0
REFERENCE_ROWS: Final = 300
TEST_SHARE: Final = 3
"""One row in so many is for testing."""
KNOWN: Final = Skill(old=0.84, new=0.34)
TAUGHT: Final = Skill(old=0.83, new=0.74)
"""What a model knows after honest data without, and with, labelled texts of the new topic."""
TFIDF: Final = 0.70


class StandInTraining:
    """`Executor` of the trainer; runs no child process."""

    def __init__(self, shelf: Shelf, clock: Clock, roots: Sequence[Path]) -> None:
        self._shelf = shelf
        self._clock = clock
        self._roots = roots

    async def run(self, assignment: Assignment, tell: Tell) -> Outcome:
        try:
            data = locate(assignment.dataset.uri, self._roots)
        except UnusableData as refused:
            return Failure(stage=Stage.PREPARE, code=refused.code, reason=str(refused), retryable=False)
        for stage in Stage:
            await tell(Progress(at=self._clock.now(), stage=stage, fraction=0.0, message="began"))
            await self._clock.sleep(STAGE_SECONDS)
        lesson = Lesson(_rows(data), [(read_text(example.text), example.label) for example in assignment.examples])
        result = RunResult(
            run=assignment.run,
            data_hash=file_hash(data),
            base_model="stand-in",
            labels=list(LABELS),
            metrics=lesson.metrics(),
            variants=[_variant(precision, lesson) for precision in (Precision.FP32, Precision.INT8)],
            comparison=await self._compared(assignment.champion, lesson),
            seconds=dict.fromkeys(Stage, STAGE_SECONDS),
        )
        with tempfile.TemporaryDirectory() as folder:
            _write_artifact(Path(folder), lesson)
            name = f"{assignment.tenant}/{assignment.dataset.model}/{assignment.run}.{assignment.fence}"
            return Finished(result, await self._shelf.put(Path(folder), name))

    async def _compared(self, champion: Champion | None, lesson: "Lesson") -> Comparison | None:
        if champion is None:
            return None
        theirs = Skill.from_json(await self._shelf.read(champion.artifact, SKILL_FILE))
        slices = [lesson.paired(name, theirs) for name in ("all", BASE, FEEDBACK)]
        return Comparison(champion=champion.version, slices=[part for part in slices if part is not None])


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


class RegistryAsked:
    """`Champions` of the trainer: the registry's own use case, without the wire between."""

    def __init__(self, ports: Callable[[], RegistryPorts], tenant: str) -> None:
        """`ports` gives the registry as it stands: it may have been restarted."""
        self._ports = ports
        self._tenant = tenant

    async def champion(self, tenant: str, model: str) -> Champion | None:
        try:
            found = await registry.get_version(self._tenant, model, "@champion", self._ports())
        except (UnknownModel, UnknownAlias):
            return None
        return Champion(found.number, found.artifact, found.precision)


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
