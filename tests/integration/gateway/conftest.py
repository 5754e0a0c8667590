"""One gateway for each test, on the embedded broker and SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gateway.place import Place, open_place


@pytest.fixture
async def place(tmp_path: Path, embedded_bootstrap: str) -> AsyncIterator[Place]:
    async with open_place(tmp_path, embedded_bootstrap) as opened:
        yield opened
