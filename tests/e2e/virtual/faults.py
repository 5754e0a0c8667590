"""Killing rooms at the moments that matter, drawn from a seed, and a database that a kill leaves as it was."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from services.kit.persistence.sql.database import Database
from tests.e2e.virtual.inline_sqlite import run_inline


class Killed(BaseException):  # no handler may catch it
    """The process is gone, in the middle of what it did."""


class Faults:
    """Draws who is killed; `share` of the transactions end so. A share of zero kills nobody."""

    def __init__(self, seed: int, share: float = 0.0) -> None:
        self._generator = random.Random(seed)
        self.share = share
        self.kills: list[tuple[str, str]] = []

    def strikes(self, service: str, instant: str) -> bool:
        if self._generator.random() >= self.share:
            return False
        self.kills.append((service, instant))
        return True


class FragileDatabase(Database):
    """A room's own database, whose room may be killed before or after each commit.

    Once killed, the same object does nothing more: whatever code of the dead room still runs changes nothing.
    """

    def __init__(self, url: str, migrations: Path, service: str, faults: Faults) -> None:
        super().__init__(url, migrations)
        self.busy = 0
        """Connections in use: while there are any, something goes on in another thread."""
        self.dead = False
        self._service = service
        self._faults = faults

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        async with super().write() as session:
            yield session
            self._strike("before the commit")
        self._strike("after the commit")

    @asynccontextmanager
    async def _connection(self, *, read_only: bool = False) -> AsyncIterator[AsyncConnection]:
        if self.dead:
            raise Killed
        self.busy += 1
        try:
            async with super()._connection(read_only=read_only) as connection:
                yield connection
        finally:
            self.busy -= 1

    def _build_engine(self) -> AsyncEngine:
        engine = super()._build_engine()
        run_inline(engine)
        return engine

    def _strike(self, instant: str) -> None:
        if self._faults.strikes(self._service, instant):
            self.dead = True
            raise Killed
