"""The monitor's tables and migrations."""

from services.contracts.artifact import Precision
from services.contracts.events import FeedbackReceived
from services.kit.persistence.sql.migrate import check
from services.monitor.domain.deployments import DeploymentKey
from services.monitor.handlers.ingest import on_inference_logged
from services.monitor.outbound.store import MIGRATIONS
from services.monitor.ports import Retention
from tests.integration.monitor.conftest import DEPLOYMENT, Monitor

KEY = DeploymentKey("default", DEPLOYMENT)


async def test_the_migrations_make_the_tables_that_the_code_has(monitor: Monitor) -> None:
    async with monitor.store.database._connection() as connection:
        await connection.run_sync(check, MIGRATIONS)


async def test_a_watch_and_a_rollout_come_back_as_they_were_saved(monitor: Monitor) -> None:
    await monitor.serve(1, canary=2)
    await monitor.log(
        monitor.record(2, request="q", variant=Precision.FP16), monitor.record(1, request="q", failed=True)
    )
    await monitor.pass_time(1)
    async with monitor.store.transaction() as tx:
        watch, rollout = await tx.watch(KEY), await tx.rollout(KEY)
        assert watch is not None
        assert rollout is not None
        assert rollout.last_verdict is not None
        assert rollout.variants.candidate == {Precision.FP16}
        assert watch.series[Precision.INT8].answered == 1
        await tx.save_watch(watch)
        await tx.save_rollout(rollout)
        assert await tx.watch(KEY) == watch
        assert await tx.rollout(KEY) == rollout


async def test_a_batch_of_records_counts_once_until_its_inbox_row_is_old_enough(monitor: Monitor) -> None:
    """The monitor forgets batches earlier than other events, for they are many; and not before their time."""
    retention, other = Retention(), monitor.envelope(FeedbackReceived(deployment=DEPLOYMENT, request="q", label="a"))
    async with monitor.store.transaction() as tx:
        assert await tx.mark_processed(other)
    await monitor.serve(1)
    batch = await monitor.log(monitor.record(1))

    async def requests_after(hours: float) -> int:
        """How many are counted after so long, once the inbox was tidied and the batch was delivered again."""
        await monitor.clock.advance(hours * 3600)
        async with monitor.store.transaction() as tx:
            await tx.drop_expired(monitor.clock.now(), retention)
        await on_inference_logged([batch], monitor.ports)
        async with monitor.store.reading() as tx:
            watch = await tx.watch(KEY)
        assert watch is not None
        return watch.series[Precision.INT8].answered

    assert await requests_after(0) == 1
    assert await requests_after(retention.inbox_hours - 1) == 1
    assert await requests_after(2) == 2
    async with monitor.store.transaction() as tx:
        assert not await tx.mark_processed(other)


async def test_of_many_answers_and_windows_the_newest_stay(monitor: Monitor) -> None:
    await monitor.serve(1)
    for _ in range(5):
        await monitor.answer(1, 100)
        await monitor.pass_time(1)
    async with monitor.store.transaction() as tx:
        await tx.drop_expired(monitor.clock.now(), Retention(answers=200, windows=2))
    async with monitor.store.reading() as tx:
        assert [window.number for window in await tx.tested_windows(KEY, 10)] == [5, 4]
        observations = await tx.observations_since(KEY, monitor.clock.now().replace(year=2020))
    assert len(observations) <= 200
