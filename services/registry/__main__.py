"""`python -m services.registry` serves; `... rebuild [--check] [--json]` rebuilds the tables from the history.

With `--check` no table is rewritten. A rebuild exits 0 when tables and history agreed, 1 when they did not, 2 when it
could not be told (settings, no database), 3 when the history itself is broken.
"""

import argparse
import asyncio
import sys
from dataclasses import asdict

import orjson
from sqlmodel.ext.asyncio.session import AsyncSession

from services.contracts.errors import MillraceError
from services.kit.core.clock import SystemClock
from services.kit.core.ids import SystemIds
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.history import BrokenHistory
from services.kit.persistence.sql.store import SqlStore
from services.kit.service import main
from services.registry.app import MIGRATIONS, build
from services.registry.outbound.store import Rebuilt, RegistryTx, rebuild
from services.registry.settings import RegistrySettings


async def _rebuild(settings: RegistrySettings, *, check: bool) -> Rebuilt:
    """Raises BrokenHistory, DatabaseDown."""
    database = Database(settings.sql_url(), MIGRATIONS)
    await database.open()

    def begin(session: AsyncSession) -> RegistryTx:
        return RegistryTx(session, clock=SystemClock(), ids=SystemIds(), source="millrace/registry")

    store = SqlStore(database, begin)
    try:
        async with store.reading() if check else store.transaction() as tx:
            return await rebuild(tx, keep=not check)
    finally:
        await database.close()


def rebuild_tables(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="millrace registry rebuild",
        description="Rebuilds the tables from the history, and compares the state hashes.",
    )
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    options = parser.parse_args(arguments)
    try:
        rebuilt = asyncio.run(_rebuild(RegistrySettings.load(), check=options.check))
    except BrokenHistory as broken:
        print(f"{broken} {broken.hint}", file=sys.stderr)
        return 3
    except MillraceError as error:
        print(f"{error} {error.hint or ''}", file=sys.stderr)
        return 2
    if options.json:
        print(orjson.dumps(asdict(rebuilt)).decode())
    else:
        verdict = "agree" if not rebuilt.differing else f"differ for {', '.join(rebuilt.differing)}"
        counted = f"{rebuilt.facts} facts, {rebuilt.models} models, {rebuilt.deployments} deployments"
        print(f"{counted}, state {rebuilt.hash[:16]}: tables and history {verdict}")
    return 1 if rebuilt.differing else 0


if __name__ == "__main__":
    sys.exit(rebuild_tables(sys.argv[2:]) if sys.argv[1:2] == ["rebuild"] else main(RegistrySettings, build))
