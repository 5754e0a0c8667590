"""A gateway, a replica that generates with a small model of random weights, and a monitor; the test is the registry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.tasks import TASKS
from services.inference.outbound.generation.engines import GenerationEngines, GenerationLimits
from services.kit.core.clock import SystemClock
from services.trainer.stages.decoder.export import export_decoder
from tests.fixtures.decoders import tiny_decoder
from tests.integration.tasks.fleet import Fleet, fleet


@dataclass
class ExportedModel:
    """`Artifacts` of a replica that knows one, whatever it is asked for."""

    folder: Path

    async def fetch(self, ref: ArtifactRef) -> Path:
        return self.folder

    async def prune(self, keep: set[str]) -> None: ...


def exported_model(folder: Path) -> ExportedModel:
    """A small Llama, in the variant that the tests' targets name."""
    tiny_decoder("llama", folder / "source")
    export_decoder(folder / "source", folder / "artifact", "tiny", [Precision.FP32, Precision.INT8])
    return ExportedModel(folder / "artifact")


@asynccontextmanager
async def serving(model: ExportedModel, home: Path, bootstrap: str, **knobs: Any) -> AsyncIterator[Fleet]:
    engines = GenerationEngines(
        GenerationLimits(rows=4, cache_tokens=2_048), clock=SystemClock(), new_seed=lambda: 11, observe=lambda _: None
    )
    try:
        async with fleet(home, bootstrap, engines=engines, artifacts=model, tasks=TASKS, **knobs) as serving_fleet:
            await serving_fleet.serve()
            yield serving_fleet
    finally:
        await engines.stop()
