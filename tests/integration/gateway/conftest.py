"""One gateway for each test, on the embedded broker and SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gateway.gateway import GatewayUnderTest, open_gateway


@pytest.fixture
async def gateway(tmp_path: Path, embedded_bootstrap: str) -> AsyncIterator[GatewayUnderTest]:
    async with open_gateway(tmp_path, embedded_bootstrap) as opened:
        yield opened
