"""A registry on each kind of database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.registry.door import Door, open_door
from tests.integration.registry.place import Registry


@pytest.fixture
async def registry(database_url: str, tmp_path: Path) -> AsyncIterator[Registry]:
    made = Registry(database_url, tmp_path)
    await made.database.open()
    yield made
    await made.database.close()


@pytest.fixture
async def door(registry: Registry, tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(registry, tmp_path / "keys") as opened:
        yield opened
