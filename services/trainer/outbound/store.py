"""The trainer's transactions on SQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import SQLModel

from services.contracts.artifact import ArtifactRef
from services.contracts.events import DatasetReady
from services.contracts.training import Recipe
from services.kit.persistence.sql import history
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns
from services.trainer.domain.datasets import Dataset, DatasetVersion, Example
from services.trainer.domain.runs import Run, RunFact, RunFilter, RunStatus
from services.trainer.domain.spec import DataContent, Failure, Handle, RunResult, TrainingSpec
from services.trainer.outbound.tables import DatasetRow, LabelRow, RunRow, TextRow, VersionRow
from services.trainer.ports import GivenLabel, SeenText

_STREAM = "run/"
_ITEM_KEY = ["tenant", "deployment", "request"]
_OF_ANNOUNCEMENT = ("dataset", "announced")


class TrainerTx(SqlUnitOfWork):
    """`trainer.ports.Tx`."""

    # --- data sets

    async def dataset(self, tenant: str, name: str) -> Dataset | None:
        t = columns(DatasetRow)
        row = (await self.execute(sa.select(t).where(t.c.tenant == tenant, t.c.name == name))).one_or_none()
        return _dataset(row) if row else None

    async def latest_dataset(self, tenant: str, model: str) -> Dataset | None:
        t = columns(DatasetRow)
        here = sa.select(t).where(t.c.tenant == tenant, t.c.model == model)
        row = (await self.execute(here.order_by(t.c.announced_at.desc(), t.c.name).limit(1))).one_or_none()
        return _dataset(row) if row else None

    async def save_dataset(self, dataset: Dataset) -> None:
        row = {
            "tenant": dataset.tenant,
            "name": dataset.announced.dataset,
            "model": dataset.announced.model,
            "announced": dataset.announced.model_dump(mode="json"),
            "announced_at": dataset.announced_at,
            "latest_run": dataset.latest_run,
            "content_hash": dataset.content_hash,
        }
        await self.upsert(DatasetRow, row, keys=["tenant", "name"])

    async def datasets(self, tenant: str, *, after: str, limit: int) -> list[Dataset]:
        t = columns(DatasetRow)
        query = sa.select(t).where(t.c.tenant == tenant, t.c.name > after).order_by(t.c.name).limit(limit)
        return [_dataset(row) for row in await self.execute(query)]

    async def version(self, tenant: str, dataset: str, content_hash: str) -> DatasetVersion | None:
        t = columns(VersionRow)
        query = self._versions(tenant, dataset).where(t.c.content_hash == content_hash)
        row = (await self.execute(query)).one_or_none()
        return _version(row) if row else None

    async def save_version(self, version: DatasetVersion) -> None:
        row = {name: getattr(version, name) for name in VersionRow.model_fields if name not in _OF_ANNOUNCEMENT}
        row |= {"dataset": version.announced.dataset, "announced": version.announced.model_dump(mode="json")}
        await self.upsert(VersionRow, row, keys=["tenant", "dataset", "content_hash"])

    async def versions(
        self, tenant: str, dataset: str, *, after: DatasetVersion | None, limit: int
    ) -> list[DatasetVersion]:
        t = columns(VersionRow)
        query = self._versions(tenant, dataset).order_by(t.c.first_at.desc(), t.c.content_hash.desc()).limit(limit)
        if after is not None:
            same = sa.and_(t.c.first_at == after.first_at, t.c.content_hash < after.content_hash)
            query = query.where(sa.or_(t.c.first_at < after.first_at, same))
        return [_version(row) for row in await self.execute(query)]

    async def versions_like(self, tenant: str, dataset: str, beginning: str, *, limit: int) -> list[DatasetVersion]:
        t = columns(VersionRow)
        query = self._versions(tenant, dataset).where(t.c.content_hash.startswith(beginning)).limit(limit)
        return [_version(row) for row in await self.execute(query)]

    def _versions(self, tenant: str, dataset: str) -> sa.Select[Any]:
        t = columns(VersionRow)
        return sa.select(t).where(t.c.tenant == tenant, t.c.dataset == dataset)

    # --- runs

    async def run(self, tenant: str, run: str) -> Run | None:
        t = columns(RunRow)
        query = sa.select(t).where(t.c.tenant == tenant, t.c.id == run).with_for_update()
        row = (await self.execute(query)).one_or_none()
        return _run(row) if row else None

    async def save_run(self, run: Run, facts: Sequence[RunFact], *, actor: str, reason: str, at: datetime) -> None:
        for fact in facts:
            await history.append(
                self,
                tenant=run.tenant,
                stream=_STREAM + run.id,
                kind=fact.kind,
                payload=fact.model_dump(mode="json"),
                actor=actor,
                reason=reason,
                at=at,
            )
        row = {name: getattr(run, name) for name in RunRow.model_fields}
        row |= {
            name: value.model_dump(mode="json") if value is not None else None
            for name, value in (
                ("spec", run.spec),
                ("handle", run.handle),
                ("failure", run.failure),
                ("artifact", run.artifact),
                ("result", run.result),
                ("content", run.content),
                ("recipe", run.recipe),
            )
        }
        await self.upsert(RunRow, row, keys=["tenant", "id"])

    async def runs(self, tenant: str, run_filter: RunFilter, *, before: str, limit: int) -> list[Run]:
        t = columns(RunRow)
        query = sa.select(t).where(t.c.tenant == tenant).order_by(t.c.id.desc()).limit(limit)
        for name in ("model", "status", "dataset"):
            if value := getattr(run_filter, name):
                query = query.where(t.c[name] == value)
        if run_filter.since is not None:
            query = query.where(t.c.created_at >= run_filter.since)
        if before:
            query = query.where(t.c.id < before)
        return [_run(row) for row in await self.execute(query)]

    # --- labelled traffic

    async def save_texts(
        self, tenant: str, deployment: str, model: str, texts: Sequence[SeenText], *, most: int
    ) -> None:
        rows = [
            {
                "tenant": tenant,
                "deployment": deployment,
                "request": seen.item,
                "model": model,
                "text": seen.text,
                "at": seen.at,
            }
            for seen in texts
        ]
        statement = self._insert(TextRow).values(rows).on_conflict_do_nothing(index_elements=_ITEM_KEY)
        await self.execute(statement)
        await self._forget(TextRow, tenant, deployment, most)

    async def save_labels(self, tenant: str, deployment: str, labels: Sequence[GivenLabel], *, most: int) -> None:
        last: dict[str, GivenLabel] = {}  # one statement must not touch a row twice
        for given in labels:
            if given.item not in last or given.at >= last[given.item].at:
                last[given.item] = given
        rows = [
            {"tenant": tenant, "deployment": deployment, "request": item, "label": given.label, "at": given.at}
            for item, given in last.items()
        ]
        statement = self._insert(LabelRow).values(rows)
        statement = statement.on_conflict_do_update(
            index_elements=_ITEM_KEY,
            set_={"label": statement.excluded.label, "at": statement.excluded.at},
            where=statement.excluded.at >= columns(LabelRow).c.at,
        )
        await self.execute(statement)
        await self._forget(LabelRow, tenant, deployment, most)

    async def labelled(self, tenant: str, model: str, since: datetime, until: datetime, limit: int) -> list[Example]:
        text, label = columns(TextRow), columns(LabelRow)
        same = sa.and_(*(text.c[name] == label.c[name] for name in _ITEM_KEY))
        query = (
            sa.select(text.c.text, label.c.label)
            .join(label, same)
            .where(text.c.tenant == tenant, text.c.model == model, text.c.at >= since, text.c.at <= until)
            .where(label.c.at <= until)
            .order_by(text.c.at.desc(), text.c.request.desc())
            .limit(limit)
        )
        return [Example(row.text, row.label) for row in (await self.execute(query)).all()[::-1]]

    async def _forget(self, table: type[SQLModel], tenant: str, deployment: str, most: int) -> None:
        """Drops what was kept before the latest `most`."""
        t = columns(table)
        here = sa.and_(t.c.tenant == tenant, t.c.deployment == deployment)
        oldest_retained = (
            sa.select(t.c.position)
            .where(here)
            .order_by(t.c.position.desc())
            .limit(1)
            .offset(most - 1)
            .scalar_subquery()
        )
        await self.execute(sa.delete(t).where(here, t.c.position < oldest_retained))


def _dataset(row: Any) -> Dataset:
    announced = DatasetReady.model_validate(row.announced)
    return Dataset(row.tenant, announced, row.announced_at, row.latest_run, row.content_hash)


def _version(row: Any) -> DatasetVersion:
    return DatasetVersion(
        tenant=row.tenant,
        content_hash=row.content_hash,
        announced=DatasetReady.model_validate(row.announced),
        first_at=row.first_at,
        announced_at=row.announced_at,
        latest_run=row.latest_run,
        size_bytes=row.size_bytes,
        rows=row.rows,
    )


def _run(row: Any) -> Run:
    return Run(
        id=row.id,
        tenant=row.tenant,
        model=row.model,
        dataset=row.dataset,
        cause=row.cause,
        created_at=row.created_at,
        parent=row.parent,
        status=RunStatus(row.status),
        progress=row.progress,
        progress_read=row.progress_read,
        spec=TrainingSpec.model_validate(row.spec) if row.spec else None,
        attempt=row.attempt,
        failed_attempts=row.failed_attempts,
        executing=row.executing,
        handle=Handle.model_validate(row.handle) if row.handle else None,
        failure=Failure.model_validate(row.failure) if row.failure else None,
        artifact=ArtifactRef.model_validate(row.artifact) if row.artifact else None,
        result=RunResult.model_validate(row.result) if row.result else None,
        ended_at=row.ended_at,
        trace_id=row.trace_id,
        announced_hash=row.announced_hash,
        content=DataContent.model_validate(row.content) if row.content else None,
        recipe=Recipe.model_validate(row.recipe) if row.recipe else None,
        deploy=row.deploy,
        started_by=row.started_by,
        start_reason=row.start_reason,
        cancelled_by=row.cancelled_by,
        cancel_reason=row.cancel_reason,
    )
