"""A room on a database of the test's own, and the spans that the kit makes."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.kit.rooms import Room, room_at
from tests.unit.kit.conftest import spans

__all__ = ["room", "spans"]


@pytest.fixture
async def room(database_url: str) -> AsyncIterator[Room]:
    made = room_at(database_url)
    await made.database.open()
    yield made
    await made.database.close()
