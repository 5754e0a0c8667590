"""The clients of OpenAI's API against a model that generates, each in a process that knows nothing of us."""

import asyncio
from pathlib import Path

import pytest

from tests.clients.tried import run, scripts
from tests.integration.generation.serving import ExportedModel, exported_model, serving
from tests.waiting import LIMIT_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return exported_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("script", scripts("generation_"))
async def test_a_client_meets_what_it_expects(
    script: str, model: ExportedModel, tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with serving(model, tmp_path, embedded_bootstrap) as fleet:
        gateway = fleet.gateway
        async with asyncio.timeout(LIMIT_SECONDS):
            while (await gateway.client.get("/v1/models/news")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        key = gateway.metadata[0][1].removeprefix("Bearer ")
        environment = {"MILLRACE_REST": gateway.rest, "MILLRACE_KEY": key, "MILLRACE_DEPLOYMENT": "news"}
        assert await asyncio.to_thread(run, script, environment)
