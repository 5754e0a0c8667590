"""The monitor's tables and migrations."""

from services.kit.persistence.sql.migrate import check
from services.monitor.domain.watching import Place
from services.monitor.outbound.store import MIGRATIONS
from services.monitor.ports import Retention
from tests.integration.monitor.conftest import DEPLOYMENT, Monitor

PLACE = Place("default", DEPLOYMENT)


async def test_the_migrations_make_the_tables_that_the_code_has(monitor: Monitor) -> None:
    async with monitor.store.database._connection() as connection:
        await connection.run_sync(check, MIGRATIONS)


async def test_a_watch_and_a_rollout_come_back_as_they_were_kept(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.log(monitor.record(2, request="q"), monitor.record(1, request="q", mirrored=True, failed=True))
    await monitor.pass_time(1)
    async with monitor.store.transaction() as tx:
        watch, rollout = await tx.watch(PLACE), await tx.rollout(PLACE)
        assert watch is not None
        assert rollout is not None
        assert rollout.told is not None
        await tx.save_watch(watch)
        await tx.save_rollout(rollout)
        assert await tx.watch(PLACE) == watch
        assert await tx.rollout(PLACE) == rollout


async def test_of_many_answers_and_windows_the_newest_are_kept(monitor: Monitor) -> None:
    await monitor.serve(1)
    for _ in range(5):
        await monitor.answer(1, 100)
        await monitor.pass_time(1)
    async with monitor.store.transaction() as tx:
        await tx.forget(monitor.clock.now(), Retention(answers=200, windows=2))
    async with monitor.store.reading() as tx:
        assert [window.number for window in await tx.tested_windows(PLACE, 10)] == [5, 4]
        kept = await tx.known_since(PLACE, monitor.clock.now().replace(year=2020))
    assert len(kept) <= 200
