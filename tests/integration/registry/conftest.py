"""A registry on each kind of database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.registry.client import RegistryClient, open_client
from tests.integration.registry.fixture import Registry


@pytest.fixture
async def registry(database_url: str, tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(database_url, tmp_path)
    await made.database.open()
    yield made
    await made.database.close()


@pytest.fixture
async def client(registry: Registry, tmp_path: Path) -> AsyncIterator[RegistryClient]:
    async with open_client(registry, tmp_path / "keys") as opened:
        yield opened
