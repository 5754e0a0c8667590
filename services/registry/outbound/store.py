"""The registry's transactions on SQL, and the rebuilding of its tables from the history."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from services.contracts.events import RegistryFact, ReplicaReported
from services.kit.core.hash_chain import HistoryFilter
from services.kit.messaging.envelope import EventRef
from services.kit.persistence.sql import history
from services.kit.persistence.sql.history import Entry
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns
from services.registry.domain import (
    AnyFact,
    Decided,
    Deployment,
    ModelState,
    canonical_json,
    evolve,
    parse,
    payload,
    state_hash,
)
from services.registry.domain.facts import ModelFact
from services.registry.domain.state import Aggregate
from services.registry.outbound.tables import PROJECTION, DeploymentModelRow, DeploymentRow, ModelRow, ReplicaRow
from services.registry.ports import HistoryEntry, KnownDeployment


class RegistryTx(SqlUnitOfWork):
    """`registry.ports.Tx`."""

    async def model(self, tenant: str, name: str) -> ModelState:
        state = await self._locked(ModelRow, tenant, name)
        return ModelState.model_validate_json(state) if state else ModelState(model=name)

    async def deployment(self, tenant: str, name: str) -> Deployment:
        state = await self._locked(DeploymentRow, tenant, name)
        return Deployment.model_validate_json(state) if state else Deployment(name=name)

    async def _locked(self, row: type[ModelRow | DeploymentRow], tenant: str, name: str) -> str:
        table = columns(row)
        query = self.lock(sa.select(table.c.state).where(table.c.tenant == tenant, table.c.name == name))
        state = (await self.execute(query)).scalar_one_or_none()
        if state is None and await self.lock_name(f"{table.name}/{tenant}/{name}"):  # nothing was there to lock
            state = (await self.execute(query)).scalar_one_or_none()
        return state or ""

    async def record(self, cause: EventRef, decided: Decided, at: datetime) -> None:
        entry = await history.append(
            self,
            tenant=cause.tenant,
            stream=decided.fact.stream,
            kind=decided.fact.kind,
            payload=payload(decided.fact),
            actor=decided.actor,
            reason=decided.reason,
            at=at,
        )
        await self.emit(_published(entry), cause=cause)

    async def save_model(self, tenant: str, state: ModelState) -> None:
        row = {"tenant": tenant, "name": state.model, "state": canonical_json(state), "state_hash": state_hash(state)}
        await self.upsert(ModelRow, row, keys=["tenant", "name"])

    async def save_deployment(self, tenant: str, state: Deployment) -> None:
        values: dict[str, Any] = {"tenant": tenant, "name": state.name, "generation": state.generation}
        values |= {"deleted": state.spec is None, "changed_at": state.changed_at}
        values |= {"state": canonical_json(state), "state_hash": state_hash(state)}
        await self.upsert(DeploymentRow, values, keys=["tenant", "name"])
        for model in state.models:
            served = {"tenant": tenant, "model": model, "deployment": state.name}
            await self.insert_once(DeploymentModelRow, served)

    async def find_models(self, tenant: str, names: Collection[str]) -> dict[str, ModelState]:
        table = columns(ModelRow)
        query = sa.select(table.c.name, table.c.state).where(table.c.tenant == tenant, table.c.name.in_(names))
        return {row.name: ModelState.model_validate_json(row.state) for row in await self.execute(query)}

    async def find_deployments(self, tenant: str, names: Collection[str]) -> list[Deployment]:
        table = columns(DeploymentRow)
        query = sa.select(table.c.state).where(table.c.tenant == tenant, table.c.name.in_(names))
        return [Deployment.model_validate_json(row.state) for row in await self.execute(query.order_by(table.c.name))]

    async def models(self, tenant: str, *, after: str, limit: int) -> list[ModelState]:
        table = columns(ModelRow)
        query = sa.select(table.c.name, table.c.state).where(table.c.tenant == tenant).order_by(table.c.name)
        matches: list[ModelState] = []
        while len(matches) < limit:
            page = (await self.execute(query.where(table.c.name > after).limit(limit))).all()
            states = [ModelState.model_validate_json(row.state) for row in page]
            matches += [state for state in states if state.versions]
            if len(page) < limit:
                break
            after = page[-1].name
        return matches[:limit]

    async def deployments(
        self, tenant: str, *, model: str = "", after: str = "", limit: int = 10_000
    ) -> list[Deployment]:
        table = columns(DeploymentRow)
        here = [table.c.tenant == tenant, table.c.name > after, table.c.deleted.is_(False)]
        if model:
            here.append(table.c.name.in_(_serving(tenant, model)))
        rows = await self.execute(sa.select(table.c.state).where(*here).order_by(table.c.name).limit(limit))
        return [Deployment.model_validate_json(row.state) for row in rows]

    async def known_deployments(self) -> list[tuple[str, KnownDeployment]]:
        t = columns(DeploymentRow)
        query = sa.select(t.c.tenant, t.c.name, t.c.generation, t.c.deleted, t.c.changed_at)
        rows = await self.execute(query.order_by(t.c.tenant, t.c.name))
        return [(row.tenant, KnownDeployment(row.name, row.generation, row.deleted, row.changed_at)) for row in rows]

    async def record_report(self, tenant: str, report: ReplicaReported, at: datetime) -> bool:
        table = columns(ReplicaRow)
        here = sa.and_(table.c.tenant == tenant, table.c.replica == report.replica)
        last = (await self.execute(sa.select(table.c.sequence).where(here))).scalar_one_or_none()
        if last is not None and report.sequence <= last:
            return False
        row: dict[str, Any] = {"tenant": tenant, "replica": report.replica, "sequence": report.sequence}
        row |= {"report": report.model_dump_json(), "leaving": report.leaving, "reported_at": at}
        await self.upsert(ReplicaRow, row, keys=["tenant", "replica"])
        return True

    async def live_replicas(self, tenant: str, since: datetime) -> Sequence[ReplicaReported]:
        table = columns(ReplicaRow)
        live = sa.and_(table.c.tenant == tenant, table.c.reported_at >= since, table.c.leaving.is_(False))
        rows = await self.execute(sa.select(table.c.report).where(live).order_by(table.c.replica))
        return [ReplicaReported.model_validate_json(row.report) for row in rows]

    async def history(
        self, tenant: str, chosen: HistoryFilter, *, after: int = 0, before: int = 0, limit: int
    ) -> list[HistoryEntry]:
        matches = await history.entries(self, tenant=tenant, chosen=chosen, after=after, before=before, limit=limit)
        return [_line(entry) for entry in matches]

    async def chain(self, tenant: str, *, after: int, limit: int) -> list[HistoryEntry]:
        matches = await history.entries(self, after=after, limit=limit)
        return [_line(entry) if entry.tenant == tenant else _link(entry) for entry in matches]

    async def history_head(self) -> tuple[int, str]:
        return await history.head(self)

    async def facts_about(self, tenant: str, model: str, until: datetime | None) -> list[tuple[Decided, datetime]]:
        served = (await self.execute(_serving(tenant, model))).scalars().all()
        matches: list[Entry] = []
        for stream in (f"model/{model}", *(f"deployment/{name}" for name in served)):
            after = 0
            while page := await history.entries(self, tenant=tenant, stream=stream, after=after):
                after = page[-1].sequence
                matches += [entry for entry in page if until is None or entry.at <= until]
        matches.sort(key=lambda entry: entry.sequence)
        return [(_decided(entry), entry.at) for entry in matches]


def _serving(tenant: str, model: str) -> sa.Select[Any]:
    """The names of the deployments that serve the model, or ever did."""
    table = columns(DeploymentModelRow)
    return sa.select(table.c.deployment).where(table.c.tenant == tenant, table.c.model == model)


@dataclass(frozen=True)
class Rebuilt:
    """What the history says, against what the tables said."""

    facts: int
    models: int
    deployments: int
    hash: str
    differing: list[str]
    """Streams, as tenant/model/name or tenant/deployment/name, whose table rows were not what their history gives."""


async def rebuild(tx: RegistryTx, *, keep: bool) -> Rebuilt:
    """Folds the verified history; with `keep` the tables are dropped and written anew. Raises BrokenHistory."""
    states: dict[tuple[str, str], Aggregate] = {}
    facts = 0
    async for entry in history.verified(tx):
        facts += 1
        fact = parse(entry.kind, dict(entry.payload))
        before = states.get((entry.tenant, entry.stream)) or _initial(fact)
        states[entry.tenant, entry.stream] = evolve(before, Decided(fact, entry.actor, entry.reason), entry.at)
    folded = {key: state_hash(state) for key, state in states.items()}
    stored, expected = await _stored_rows(tx), _expected_rows(states)
    differing = sorted("/".join(key) for key in {*stored, *expected} if stored.get(key) != expected.get(key))
    if keep:
        for projection in PROJECTION:
            await tx.execute(sa.delete(columns(projection)))
        for (tenant, _), state in sorted(states.items()):
            await (tx.save_model(tenant, state) if isinstance(state, ModelState) else tx.save_deployment(tenant, state))
    models = sum(isinstance(state, ModelState) for state in states.values())
    total = history.fold_hash(folded[key] for key in sorted(folded))
    return Rebuilt(facts, models, len(states) - models, total, differing)


def _initial(fact: AnyFact) -> Aggregate:
    """The state before the first fact of its stream."""
    return ModelState(model=fact.model) if isinstance(fact, ModelFact) else Deployment(name=fact.deployment)


_Rows = dict[tuple[str, str], set[tuple[object, ...]]]


async def _stored_rows(tx: RegistryTx) -> _Rows:
    """Every row of the projection, by tenant and stream."""
    rows: _Rows = defaultdict(set)
    for row in await tx.execute(sa.select(columns(ModelRow))):
        rows[row.tenant, f"model/{row.name}"].add((row.state, row.state_hash))
    for row in await tx.execute(sa.select(columns(DeploymentRow))):
        rows[row.tenant, f"deployment/{row.name}"].add(
            (row.state, row.state_hash, row.generation, row.deleted, row.changed_at)
        )
    for row in await tx.execute(sa.select(columns(DeploymentModelRow))):
        rows[row.tenant, f"deployment/{row.deployment}"].add((row.model,))
    return rows


def _expected_rows(states: Mapping[tuple[str, str], Aggregate]) -> _Rows:
    rows: _Rows = {}
    for key, state in states.items():
        row: tuple[object, ...] = (canonical_json(state), state_hash(state))
        if isinstance(state, ModelState):
            rows[key] = {row}
        else:
            served = {(model,) for model in state.models}
            rows[key] = {(*row, state.generation, state.spec is None, state.changed_at), *served}
    return rows


def _published(entry: Entry) -> RegistryFact:
    return RegistryFact(
        sequence=entry.sequence,
        stream=entry.stream,
        kind=entry.kind,
        payload=dict(entry.payload),
        actor=entry.actor,
        reason=entry.reason,
        at=entry.at,
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )


def _decided(entry: Entry) -> Decided:
    return Decided(parse(entry.kind, dict(entry.payload)), entry.actor, entry.reason)


def _line(entry: Entry) -> HistoryEntry:
    return HistoryEntry(
        sequence=entry.sequence,
        tenant=entry.tenant,
        stream=entry.stream,
        kind=entry.kind,
        actor=entry.actor,
        reason=entry.reason,
        at=entry.at,
        payload=dict(entry.payload),
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )


def _link(entry: Entry) -> HistoryEntry:
    """Its place in the chain, and nothing that it says."""
    return HistoryEntry(
        sequence=entry.sequence,
        tenant="",
        stream="",
        kind="",
        actor="",
        reason="",
        at=None,
        payload={},
        previous_hash=entry.previous_hash,
        hash=entry.hash,
    )
