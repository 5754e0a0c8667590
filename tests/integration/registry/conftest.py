"""A registry on each kind of database."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.registry.place import Registry


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Registry]:
    made = Registry(database_url)
    await made.database.open()
    yield made
    await made.database.close()
