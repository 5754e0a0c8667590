"""The registry's transactions on SQL, and the rebuilding of its tables from the history."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from services.registry.domain import Decided, ModelState, canonical_json, evolve, parse, payload, state_hash
from services.registry.outbound.tables import PROJECTION, DeploymentRow, ModelRow, ReplicaRow
from services.registry.ports import HistoryEntry, KnownDeployment

_STREAM = "model/"


class RegistryTx(SqlUnitOfWork):
    """`registry.ports.Tx`."""

    async def model(self, tenant: str, name: str) -> ModelState:
        table = columns(ModelRow)
        here = sa.and_(table.c.tenant == tenant, table.c.name == name)
        query = self.lock(sa.select(table.c.state).where(here))
        row = (await self.execute(query)).one_or_none()
        if row is None and await self.lock_name(f"{tenant}/{name}"):  # nothing was there to lock
            row = (await self.execute(query)).one_or_none()
        return ModelState.model_validate_json(row.state) if row else ModelState(model=name)

    async def record(self, cause: EventRef, decided: Decided, at: datetime) -> None:
        stream = _STREAM + decided.fact.model
        entry = await history.append(
            self,
            tenant=cause.tenant,
            stream=stream,
            kind=decided.fact.kind,
            payload=payload(decided.fact),
            actor=decided.actor,
            reason=decided.reason,
            at=at,
        )
        await self.emit(_published(entry), cause=cause)

    async def keep(self, tenant: str, state: ModelState) -> None:
        row = {"tenant": tenant, "name": state.model, "state": canonical_json(state), "state_hash": state_hash(state)}
        await self.upsert(ModelRow, row, keys=["tenant", "name"])
        for deployment in state.deployments.values():
            values: dict[str, Any] = {"tenant": tenant, "name": deployment.name, "model": state.model}
            values |= {"generation": deployment.generation, "changed_at": deployment.changed_at}
            await self.upsert(DeploymentRow, values, keys=["tenant", "name"])

    async def models(self, tenant: str, *, after: str, limit: int) -> list[ModelState]:
        table = columns(ModelRow)
        query = sa.select(table.c.name, table.c.state).where(table.c.tenant == tenant).order_by(table.c.name)
        found: list[ModelState] = []
        while len(found) < limit:
            page = (await self.execute(query.where(table.c.name > after).limit(limit))).all()
            states = [ModelState.model_validate_json(row.state) for row in page]
            found += [state for state in states if state.versions]
            if len(page) < limit:
                break
            after = page[-1].name
        return found[:limit]

    async def deployments(self, tenant: str, *, after: str = "", limit: int = 10_000) -> list[KnownDeployment]:
        table = columns(DeploymentRow)
        query = sa.select(table).where(table.c.tenant == tenant, table.c.name > after).order_by(table.c.name)
        return [_known(row) for row in await self.execute(query.limit(limit))]

    async def all_deployments(self) -> list[tuple[str, KnownDeployment]]:
        table = columns(DeploymentRow)
        rows = await self.execute(sa.select(table).order_by(table.c.tenant, table.c.name))
        return [(row.tenant, _known(row)) for row in rows]

    async def deployment(self, tenant: str, name: str) -> KnownDeployment | None:
        table = columns(DeploymentRow)
        query = sa.select(table).where(table.c.tenant == tenant, table.c.name == name)
        row = (await self.execute(query)).one_or_none()
        return _known(row) if row else None

    async def record_report(self, tenant: str, report: ReplicaReported, at: datetime) -> bool:
        table = columns(ReplicaRow)
        here = sa.and_(table.c.tenant == tenant, table.c.replica == report.replica)
        last = (await self.execute(sa.select(table.c.sequence).where(here))).scalar_one_or_none()
        if last is not None and report.sequence <= last:
            return False
        row: dict[str, Any] = {"tenant": tenant, "replica": report.replica, "sequence": report.sequence}
        row |= {"report": report.model_dump_json(), "leaving": report.leaving, "heard_at": at}
        await self.upsert(ReplicaRow, row, keys=["tenant", "replica"])
        return True

    async def live_replicas(self, tenant: str, since: datetime) -> Sequence[ReplicaReported]:
        table = columns(ReplicaRow)
        live = sa.and_(table.c.tenant == tenant, table.c.heard_at >= since, table.c.leaving.is_(False))
        rows = await self.execute(sa.select(table.c.report).where(live).order_by(table.c.replica))
        return [ReplicaReported.model_validate_json(row.report) for row in rows]

    async def history(
        self, tenant: str, chosen: HistoryFilter, *, after: int = 0, before: int = 0, limit: int
    ) -> list[HistoryEntry]:
        found = await history.entries(self, tenant=tenant, chosen=chosen, after=after, before=before, limit=limit)
        return [_line(entry) for entry in found]

    async def chain(self, tenant: str, *, after: int, limit: int) -> list[HistoryEntry]:
        found = await history.entries(self, after=after, limit=limit)
        return [_line(entry) if entry.tenant == tenant else _link(entry) for entry in found]

    async def history_head(self) -> tuple[int, str]:
        return await history.head(self)

    async def story(self, tenant: str, model: str, until: datetime | None) -> list[tuple[Decided, datetime]]:
        rows: list[tuple[Decided, datetime]] = []
        after = 0
        while page := await history.entries(self, tenant=tenant, stream=_STREAM + model, after=after):
            after = page[-1].sequence
            rows += [(_decided(entry), entry.at) for entry in page if until is None or entry.at <= until]
        return rows


@dataclass(frozen=True)
class Rebuilt:
    """What the history says, against what the tables said."""

    facts: int
    models: int
    hash: str
    differing: list[str]
    """Models, as tenant/name, whose table rows were not what their history gives."""


async def rebuild(tx: RegistryTx, *, keep: bool) -> Rebuilt:
    """Folds the verified history; with `keep` the tables are dropped and written anew. Raises BrokenHistory."""
    states: dict[tuple[str, str], ModelState] = {}
    facts = 0
    async for entry in history.verified(tx):
        facts += 1
        fact = parse(entry.kind, dict(entry.payload))
        before = states.get((entry.tenant, fact.model), ModelState(model=fact.model))
        states[entry.tenant, fact.model] = evolve(before, Decided(fact, entry.actor, entry.reason), entry.at)
    folded = {key: state_hash(state) for key, state in states.items()}
    stored, expected = await _stored_rows(tx), _expected_rows(states)
    differing = sorted("/".join(key) for key in {*stored, *expected} if stored.get(key) != expected.get(key))
    if keep:
        for projection in PROJECTION:
            await tx.execute(sa.delete(columns(projection)))
        for (tenant, _), state in sorted(states.items()):
            await tx.keep(tenant, state)
    total = history.fold_hash(folded[key] for key in sorted(folded))
    return Rebuilt(facts=facts, models=len(states), hash=total, differing=differing)


_Rows = dict[tuple[str, str], set[tuple[object, ...]]]


async def _stored_rows(tx: RegistryTx) -> _Rows:
    """Every row of the projection, by tenant and model."""
    rows: _Rows = defaultdict(set)
    for row in await tx.execute(sa.select(columns(ModelRow))):
        rows[row.tenant, row.name].add((row.state, row.state_hash))
    for row in await tx.execute(sa.select(columns(DeploymentRow))):
        rows[row.tenant, row.model].add((row.name, row.generation, row.changed_at))
    return rows


def _expected_rows(states: Mapping[tuple[str, str], ModelState]) -> _Rows:
    rows: _Rows = {}
    for key, state in states.items():
        served = {(item.name, item.generation, item.changed_at) for item in state.deployments.values()}
        rows[key] = {(canonical_json(state), state_hash(state)), *served}
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


def _known(row: Any) -> KnownDeployment:
    return KnownDeployment(row.name, row.model, row.generation, row.changed_at)
