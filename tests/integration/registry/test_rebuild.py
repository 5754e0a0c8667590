"""`python -m services.registry rebuild`: the tables are a projection of the history."""

import os
import subprocess
import sys

import orjson
import pytest
import sqlalchemy as sa

from services.kit.persistence.sql.tables import HistoryRow
from services.kit.persistence.sql.unit_of_work import columns
from services.registry.domain.commands import StopDeployment
from services.registry.handlers import deployments
from services.registry.outbound.tables import DeploymentRow, ModelRow
from tests.integration.kit.services import SERVICES
from tests.integration.registry.fixture import Registry
from tests.unit.registry.scenario import MODEL

M, D, H = columns(ModelRow), columns(DeploymentRow), columns(HistoryRow)


def rebuild(url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "services.registry", "rebuild", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=SERVICES.parent,
        timeout=60,
        env={**os.environ, "MILLRACE_REGISTRY_DATABASE_URL": url},
    )


async def change(registry: Registry, *statements: sa.Executable) -> None:
    async with registry.store.transaction() as tx:
        for statement in statements:
            await tx.execute(statement)


async def test_tables_and_history_agree_differ_when_touched_and_agree_again_once_rebuilt(
    registry: Registry, database_url: str
) -> None:
    await registry.canary_of_two()
    checked = rebuild(database_url, "--check", "--json")
    assert checked.returncode == 0, checked.stderr
    published = orjson.loads(checked.stdout)
    assert (published["models"], published["deployments"], published["differing"]) == (1, 1, [])
    before = await registry.model()
    await change(
        registry, sa.update(M).values(state=sa.func.replace(M.c.state, '"status":"passed"', '"status":"refused"'))
    )
    assert (await registry.model()).state.versions[0].status == "refused"
    touched = rebuild(database_url, "--check")
    assert (touched.returncode, "differ for default/model/chapters" in touched.stdout) == (1, True)
    await change(registry, sa.update(D).values(generation=99))
    assert rebuild(database_url).returncode == 1
    assert await registry.model() == before
    again = orjson.loads(rebuild(database_url, "--check", "--json").stdout)
    assert again == published


async def test_a_stopped_deployment_folds_to_its_tables(registry: Registry, database_url: str) -> None:
    await registry.serving_one()
    await deployments.execute(StopDeployment(MODEL, "admin:1", "nobody asks it"), "default", registry.ports)
    assert rebuild(database_url, "--check").returncode == 0
    await registry.starts(1)
    assert rebuild(database_url, "--check").returncode == 0


@pytest.mark.parametrize("what", ["fact", "last"])
async def test_a_history_that_was_touched_ends_with_3(registry: Registry, database_url: str, what: str) -> None:
    await registry.serving_one()
    if what == "fact":
        await change(registry, sa.update(H).where(H.c.sequence == 2).values(actor="eve"))
    else:
        last = sa.select(sa.func.max(H.c.sequence)).scalar_subquery()
        await change(registry, sa.delete(H).where(H.c.sequence == last))
    done = rebuild(database_url, "--check")
    assert (done.returncode, done.stdout) == (3, "")
    assert "The history is broken at entry" in done.stderr


def test_what_cannot_be_checked_ends_with_2() -> None:
    done = rebuild("postgresql+asyncpg://postgres@127.0.0.1:1/nothing", "--check")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
