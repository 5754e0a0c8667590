"""A service on a database of the test's own, and the spans that the kit makes."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.kit.services import KitService, service_at
from tests.unit.kit.conftest import spans

__all__ = ["service", "spans"]


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[KitService]:
    made = service_at(database_url)
    await made.database.open()
    yield made
    await made.database.close()
