"""From a trained model to the champion: facts, tables, timers and news in one transaction each."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from services.contracts.errors import Invalid
from services.contracts.events import DeploymentChanged, RegistryFact, Verdict
from services.kit.core.hash_chain import GENESIS, HistoryFilter
from services.kit.persistence.sql.tables import InboxRow, TimerRow
from services.kit.persistence.sql.unit_of_work import columns
from services.registry.domain.state import RolloutState
from services.registry.errors import GateRefused, RolloutUnderWay, UnknownDeployment, UnknownModel
from services.registry.handlers import deployments, history, versions
from tests.integration.registry.fixture import Registry
from tests.unit.registry.scenario import MODEL, trained
from tests.waiting import LIMIT_SECONDS


async def count(registry: Registry, table: type[SQLModel]) -> int:
    async with registry.store.reading() as tx:
        return int((await tx.execute(sa.select(sa.func.count()).select_from(columns(table)))).scalar_one())


async def test_a_first_version_serves_everything_once_it_is_loaded_and_every_fact_is_published_in_order(
    registry: Registry,
) -> None:
    cause = await registry.trains("run-1")
    assert await registry.weights() == {1: 0}
    await registry.reports(1)
    state = await registry.model()
    assert (state.aliases, await registry.weights()) == ({"champion": 1}, {1: 100})
    published = await registry.published(RegistryFact)
    assert [fact.event.sequence for fact in published] == list(range(1, len(published) + 1))
    assert [fact.event.kind for fact in published] == await registry.kinds()
    assert [fact.event.previous_hash for fact in published] == [GENESIS, *(fact.event.hash for fact in published[:-1])]
    assert {fact.event.stream for fact in published} == {f"model/{MODEL}", f"deployment/{MODEL}"}
    changes = await registry.published(DeploymentChanged)
    assert [change.event.generation for change in changes] == [2, 3]
    assert (changes[0].causation, changes[0].correlation_id) == (cause.id, cause.id)


async def test_an_event_that_comes_again_has_no_second_effect(registry: Registry) -> None:
    cause = await registry.trains("run-1")
    before = await registry.kinds()
    await versions.register_version(cause, registry.ports)
    await registry.trains("run-1")  # the same run under another id
    assert await registry.kinds() == before
    assert await count(registry, InboxRow) == 2


async def test_an_artifact_that_is_refused_registers_nothing(registry: Registry) -> None:
    registry.artifacts.refuses = Invalid(problem="its hash does not fit")
    with pytest.raises(Invalid):
        await registry.trains("run-1")
    registry.artifacts.refuses = None
    await registry.trains("run-1")
    assert len((await registry.model()).state.versions) == 1


async def test_a_canary_goes_step_by_step_on_bake_time_and_verdicts_and_takes_over(registry: Registry) -> None:
    await registry.canary_of_two()
    assert await registry.weights() == {1: 90, 2: 10}
    await registry.judges(Verdict.PROMOTE)
    assert await registry.weights() == {1: 90, 2: 10}
    await registry.wait(60)
    assert await registry.weights() == {1: 50, 2: 50}
    await registry.wait(60)
    await registry.judges(Verdict.PROMOTE)
    assert (await registry.desired()).mirror == 0
    assert await registry.weights() == {1: 0, 2: 100}
    assert (await registry.model()).aliases == {"champion": 2, "previous": 1}
    await registry.wait(30)
    assert await registry.weights() == {2: 100}
    assert await count(registry, TimerRow) == 0


async def test_a_bad_canary_is_rolled_back_at_once(registry: Registry) -> None:
    await registry.canary_of_two()
    await registry.judges(Verdict.ROLL_BACK)
    assert await registry.weights() == {1: 100, 2: 0}
    rollout = await registry.rollout()
    assert (rollout.state, rollout.actor) == (RolloutState.ROLLED_BACK, "monitor")
    assert rollout.evidence[0].pairs == 120


async def test_thin_evidence_pauses_after_the_steps_timeout(registry: Registry) -> None:
    await registry.canary_of_two()
    await registry.judges(Verdict.PROMOTE, requests=3)
    await registry.wait(605)
    assert (await registry.rollout()).state is RolloutState.PAUSED
    assert await registry.weights() == {1: 90, 2: 10}


async def test_late_repeated_and_early_reports_change_nothing(registry: Registry) -> None:
    await registry.serving_one()
    await registry.trains("run-2", against=1)
    before = await registry.kinds()
    await registry.reports(1, 2, sequence=1)  # late: a newer one is known
    await registry.reports(1, 2, sequence=900, seen=1)  # it has not heard of the rollout
    assert await registry.kinds() == before
    await registry.reports(1, 2, sequence=900)  # the number was used
    assert await registry.kinds() == before
    await registry.reports(1, 2, sequence=901)
    assert (await registry.rollout()).state is RolloutState.CANARY


async def test_a_canary_waits_for_every_live_replica_but_not_for_a_silent_one(registry: Registry) -> None:
    await registry.serving_one()
    await registry.reports(1, replica="i-2")
    await registry.trains("run-2", against=1)
    await registry.reports(1, 2)
    assert (await registry.rollout()).state is RolloutState.LOADING
    await registry.wait(16)
    await registry.reports(1, 2)
    assert (await registry.rollout()).state is RolloutState.CANARY


async def test_a_replica_that_stays_behind_gets_it_again(registry: Registry) -> None:
    await registry.serving_one()
    published = len(await registry.published(DeploymentChanged))
    await registry.reports(1, seen=1)
    assert len(await registry.published(DeploymentChanged)) == published
    await registry.wait(11)
    await registry.reports(1, seen=1)
    await registry.reports(1)
    assert len(await registry.published(DeploymentChanged)) == published + 1


async def test_at_its_start_the_registry_tells_again_what_ought_to_be_served(registry: Registry) -> None:
    await registry.canary_of_two()
    before = await registry.desired()
    await deployments.republish_all(registry.ports)
    assert await registry.desired() == before


async def test_of_two_promotions_at_once_one_wins(registry: Registry) -> None:
    await registry.serving_one()
    for run in ("run-2", "run-3"):
        await registry.trains(run, against=1, deploy=False)
    outcomes = await asyncio.gather(registry.starts(2), registry.starts(3), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DeploymentView", "RolloutUnderWay"]
    with pytest.raises(RolloutUnderWay):
        await registry.starts(3)


async def test_two_runs_of_a_new_model_at_once_get_two_numbers(registry: Registry) -> None:
    await asyncio.gather(*(registry.trains(f"run-{number}") for number in range(4)))
    registered = (await registry.model()).state.versions
    assert [version.number for version in registered] == [1, 2, 3, 4]
    assert {version.trained.run for version in registered} == {"run-0", "run-1", "run-2", "run-3"}


async def test_a_refused_version_needs_skip_gate_and_a_dry_run_keeps_nothing(registry: Registry) -> None:
    await registry.serving_one()
    await registry.trains("run-2", against=1, macro_f1=0.2)
    with pytest.raises(GateRefused):
        await registry.starts(2)
    before = await registry.kinds()
    tried = await registry.starts(2, skip_gate=True, dry_run=True)
    assert tried.state.rollouts == 2
    assert await registry.kinds() == before
    await registry.starts(2, skip_gate=True)
    assert (await registry.rollout()).gate_skipped


async def test_tenants_see_nothing_of_each_other(registry: Registry) -> None:
    await registry.serving_one()
    with pytest.raises(UnknownModel):
        await registry.model("acme")
    await versions.register_version(registry.envelope(trained("run-9"), tenant="acme"), registry.ports)
    assert len((await registry.model()).state.versions) == 1
    assert [v.trained.run for v in (await registry.model("acme")).state.versions] == ["run-9"]
    theirs = await history.list_history("acme", registry.ports, HistoryFilter(), limit=2)
    assert [line.kind for line in theirs] == ["version_registered", "version_passed"]
    with pytest.raises(UnknownDeployment):
        await deployments.get_deployment("other", MODEL, registry.ports)


async def test_models_without_a_version_do_not_cut_a_page_short(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        await registry.fails(name, f"run-{name}")
    await registry.serving_one()
    assert [m.state.model for m in await versions.list_models("default", registry.ports, after="", limit=1)] == [MODEL]


async def test_reading_does_not_wait_for_a_writer(registry: Registry) -> None:
    await registry.serving_one()
    async with registry.store.transaction() as tx:
        await tx.model("default", MODEL)
        assert (await asyncio.wait_for(registry.model(), LIMIT_SECONDS)).aliases["champion"] == 1
