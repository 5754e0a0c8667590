"""Engines that need no model: the artifact says how much its model knows, and the words of a text decide the rest."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from services.contracts.artifact import Precision
from services.inference.domain.heads import ENCODER_TASKS, answer
from services.inference.domain.scoring import EngineEvent, EngineRequest, Loaded, Scored
from services.inference.domain.versions import DesiredDeployment, VersionKey
from services.inference.errors import VersionNotServed
from tests.e2e.virtual.corpus import LABELS, Skill, embedding

SKILL_FILE: Final = "skill.json"
SURE: Final = 0.8


class StandInEngines:
    """`Engines` of inference; answers at once."""

    queued = 0
    capacity = 64

    def __init__(self) -> None:
        self._skills: dict[VersionKey, Skill] = {}

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        assert key.precision is precision
        self._skills[key] = Skill.from_json((folder / SKILL_FILE).read_bytes())

    async def warm(self, key: VersionKey) -> None:
        assert key in self._skills

    async def unload(self, key: VersionKey) -> None:
        self._skills.pop(key, None)

    def loaded(self, key: VersionKey) -> Loaded:
        assert key in self._skills
        return Loaded(labels=list(LABELS), max_length=64, device="cpu", tasks=ENCODER_TASKS)

    async def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        key = request.key
        if key not in self._skills:
            raise VersionNotServed(version=key.version, deployment=key.deployment)
        scored = [_scored(self._skills[key], text) for text in request.request.texts]
        yield answer(request, scored, list(LABELS))


def _scored(skill: Skill, body: str) -> Scored:
    rest = (1 - SURE) / (len(LABELS) - 1)
    scores = [SURE if label == skill.answer(body) else rest for label in LABELS]
    full, half = embedding(body).astype("<f4").tobytes(), embedding(body).astype("<f2").tobytes()
    return Scored(scores=scores, embedding=full, embedding_half=half, tokens=len(body.split()) + 2)


class AcceptingChecker:
    """`Checker` of inference: there is no graph to distrust."""

    async def check(self, folder: Path, precision: Precision) -> None:
        assert (folder / SKILL_FILE).exists()


class InMemoryDesiredState:
    """`Remembered` of inference, as a file would keep it over a restart."""

    def __init__(self) -> None:
        self._saved: list[DesiredDeployment] = []

    async def load(self) -> list[DesiredDeployment]:
        return list(self._saved)

    async def save(self, deployments: Sequence[DesiredDeployment]) -> None:
        self._saved = list(deployments)
