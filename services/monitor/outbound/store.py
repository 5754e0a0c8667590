"""The monitor's queries, on SQLite and PostgreSQL alike."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlmodel import SQLModel

from services.contracts.artifact import Precision
from services.contracts.events import InferenceLogged, Verdict
from services.contracts.tasks.feedback import item_keys
from services.kit.core.clock import Clock
from services.kit.core.ids import Ids
from services.kit.persistence.sql.database import Database
from services.kit.persistence.sql.store import SqlStore
from services.kit.persistence.sql.tables import InboxRow
from services.kit.persistence.sql.unit_of_work import SqlUnitOfWork, columns
from services.monitor.domain.deployments import ClosedWindow, DeploymentKey, Watch
from services.monitor.domain.drift import WindowVerdict
from services.monitor.domain.observations import Answer, Observation, TimedFeedback
from services.monitor.domain.rollouts import Rollout, RolloutVerdict
from services.monitor.domain.slo import Counts, Indicator
from services.monitor.domain.windows import Sample
from services.monitor.outbound import converters
from services.monitor.outbound.tables import (
    AnswerRow,
    BreachRow,
    FeedbackRow,
    MinuteRow,
    RolloutRow,
    SampleRow,
    VerdictRow,
    WatchRow,
    WindowRow,
)
from services.monitor.ports import Minute, Retention

MIGRATIONS: Final = Path(__file__).parent / "migrations"
KEY_COLUMNS: Final = ["tenant", "deployment"]
IN_LIST: Final = 500
"""Names a query: both databases take more, none gets faster."""

Condition: TypeAlias = sa.ColumnElement[bool]


def of_deployment(table: type[SQLModel], key: DeploymentKey) -> Condition:
    c = columns(table).c
    return sa.and_(c.tenant == key.tenant, c.deployment == key.deployment)


class MonitorTx(SqlUnitOfWork):
    """`ports.Tx` on SQL; see there for the promises."""

    async def _first(self, table: type[SQLModel], condition: Condition) -> Any:
        return (await self.execute(sa.select(columns(table)).where(condition))).first()

    async def _drop(self, table: type[SQLModel], condition: Condition) -> None:
        await self.execute(sa.delete(columns(table)).where(condition))

    async def lock_deployment(self, key: DeploymentKey) -> None:
        if self.session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            name = f"monitor/{key.tenant}/{key.deployment}"
            await self.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))

    # --- what is watched

    async def watch(self, key: DeploymentKey) -> Watch | None:
        row = await self._first(WatchRow, of_deployment(WatchRow, key))
        return converters.to_watch(row) if row is not None else None

    async def watches(self) -> list[Watch]:
        table = columns(WatchRow)
        rows = await self.execute(sa.select(table).order_by(table.c.tenant, table.c.deployment))
        return [converters.to_watch(row) for row in rows]

    async def save_watch(self, watch: Watch) -> None:
        await self.upsert(WatchRow, converters.of_watch(watch), keys=KEY_COLUMNS)

    async def rollout(self, key: DeploymentKey) -> Rollout | None:
        row = await self._first(RolloutRow, of_deployment(RolloutRow, key))
        return converters.to_rollout(row) if row is not None else None

    async def save_rollout(self, rollout: Rollout) -> None:
        await self.upsert(RolloutRow, converters.of_rollout(rollout), keys=KEY_COLUMNS)

    async def drop_rollout(self, key: DeploymentKey) -> None:
        await self._drop(RolloutRow, of_deployment(RolloutRow, key))

    # --- requests

    async def observations(self, key: DeploymentKey, requests: Mapping[str, int]) -> dict[str, Observation]:
        observations: dict[str, Observation] = defaultdict(Observation)
        a, f = columns(AnswerRow), columns(FeedbackRow)
        for some in _in_parts(sorted(requests)):
            mine = (
                sa.select(a).where(of_deployment(AnswerRow, key), a.c.request.in_(some)).order_by(a.c.at, a.c.version)
            )
            for row in await self.execute(mine):
                observations[row.request] = observations[row.request].with_answer(converters.to_answer(row))
        items = _items(requests, observations)
        for some in _in_parts(sorted(items)):
            for row in await self.execute(sa.select(f).where(of_deployment(FeedbackRow, key), f.c.item.in_(some))):
                for request, item in items[row.item]:
                    observations[request] = observations[request].with_feedback(item, converters.to_feedback(row))
        return dict(observations)

    async def observations_since(self, key: DeploymentKey, since: datetime) -> list[Observation]:
        a = columns(AnswerRow)
        names = await self.execute(
            sa.select(a.c.request).where(of_deployment(AnswerRow, key), a.c.at >= since).distinct()
        )
        observations = await self.observations(key, dict.fromkeys(names.scalars(), 1))
        return [observations[name] for name in sorted(observations)]

    async def add_answers(self, key: DeploymentKey, answers: Sequence[tuple[str, Answer]]) -> None:
        if answers:
            values = [converters.of_answer(key, request, answer) for request, answer in answers]
            await self._insert_many(AnswerRow, values)

    async def save_feedback(self, key: DeploymentKey, item: str, feedback: TimedFeedback) -> None:
        values = {**converters.of_feedback(key, item, feedback), "at": self._clock.now()}
        await self.upsert(FeedbackRow, values, keys=[*KEY_COLUMNS, "item"])

    async def _insert_many(self, table: type[SQLModel], values: list[dict[str, Any]]) -> None:
        connection = await self.session.connection()
        await connection.execute(sa.insert(columns(table)), values)

    async def count(self, key: DeploymentKey, counts: Mapping[Minute, Counts]) -> None:
        keys = [*KEY_COLUMNS, "version", "minute"]
        m = columns(MinuteRow)
        for (version, minute), added in sorted(counts.items()):
            row = await self._first(
                MinuteRow, sa.and_(of_deployment(MinuteRow, key), m.c.version == version, m.c.minute == minute)
            )
            total = added if row is None else converters.to_counts(row) + added
            values = {
                **converters.key_columns(key),
                "version": version,
                "minute": minute,
                **converters.of_counts(total),
            }
            await self.upsert(MinuteRow, values, keys=keys)

    async def counts(self, key: DeploymentKey, since: datetime) -> dict[int, Counts]:
        m = columns(MinuteRow)
        by_version: dict[int, Counts] = defaultdict(Counts)
        for row in await self.execute(sa.select(m).where(of_deployment(MinuteRow, key), m.c.minute >= since)):
            by_version[row.version] += converters.to_counts(row)
        return dict(by_version)

    # --- windows

    async def samples(self, key: DeploymentKey, window: int) -> tuple[Sample, ...]:
        s = columns(SampleRow)
        query = sa.select(s).where(of_deployment(SampleRow, key), s.c.window == window).order_by(s.c.position)
        return tuple(converters.to_sample(row) for row in await self.execute(query))

    async def add_samples(self, key: DeploymentKey, window: int, first: int, samples: Sequence[Sample]) -> None:
        if samples:
            numbered = enumerate(samples, start=first)
            values = [converters.of_sample(key, window, position, sample) for position, sample in numbered]
            await self._insert_many(SampleRow, values)

    async def drop_samples(self, key: DeploymentKey, window: int | None = None) -> None:
        mine = of_deployment(SampleRow, key)
        await self._drop(SampleRow, mine if window is None else sa.and_(mine, columns(SampleRow).c.window == window))

    async def drop_answers(self, key: DeploymentKey) -> None:
        for table in (AnswerRow, MinuteRow, BreachRow):
            await self._drop(table, of_deployment(table, key))

    async def save_window(self, window: ClosedWindow) -> None:
        await self.upsert(WindowRow, converters.of_window(window), keys=[*KEY_COLUMNS, "number"])

    async def window(self, key: DeploymentKey, number: int) -> ClosedWindow | None:
        row = await self._first(
            WindowRow, sa.and_(of_deployment(WindowRow, key), columns(WindowRow).c.number == number)
        )
        return converters.to_window(row) if row is not None else None

    async def untested(self, key: DeploymentKey, variant: Precision) -> list[int]:
        w = columns(WindowRow)
        waiting = sa.and_(of_deployment(WindowRow, key), w.c.variant == variant.value, w.c.verdict.is_(None))
        query = sa.select(w.c.number).where(waiting).order_by(w.c.number)
        return list((await self.execute(query)).scalars())

    async def drop_untested(self, key: DeploymentKey) -> None:
        await self._drop(WindowRow, sa.and_(of_deployment(WindowRow, key), columns(WindowRow).c.verdict.is_(None)))

    async def tested_windows(
        self, key: DeploymentKey, limit: int, *, before: int = 0, version: int = 0, verdict: WindowVerdict | None = None
    ) -> list[ClosedWindow]:
        w = columns(WindowRow)
        query = sa.select(w).where(of_deployment(WindowRow, key), w.c.verdict.is_not(None))
        query = _filtered(query, w, version=version, verdict=verdict)
        if before:
            query = query.where(w.c.number < before)
        rows = await self.execute(query.order_by(w.c.number.desc()).limit(limit))
        return [converters.to_window(row) for row in rows]

    # --- verdicts and objectives

    async def add_verdict(self, verdict: RolloutVerdict) -> None:
        await self._insert_many(VerdictRow, [converters.of_verdict(verdict)])

    async def verdicts(
        self,
        key: DeploymentKey,
        limit: int,
        *,
        before: int = 0,
        version: int = 0,
        verdict: Verdict | None = None,
        rollout: str = "",
    ) -> list[tuple[int, RolloutVerdict]]:
        v = columns(VerdictRow)
        query = _filtered(
            sa.select(v).where(of_deployment(VerdictRow, key)), v, version=version, verdict=verdict, rollout=rollout
        )
        if before:
            query = query.where(v.c.id < before)
        rows = await self.execute(query.order_by(v.c.id.desc()).limit(limit))
        return [(row.id, converters.to_verdict(row)) for row in rows]

    async def breaches(self, key: DeploymentKey) -> set[tuple[int, Indicator]]:
        rows = await self.execute(sa.select(columns(BreachRow)).where(of_deployment(BreachRow, key)))
        return {(row.version, Indicator(row.indicator)) for row in rows}

    async def set_breached(self, key: DeploymentKey, version: int, indicator: Indicator, *, breached: bool) -> None:
        b = columns(BreachRow)
        if breached:
            breach = {**converters.key_columns(key), "version": version, "indicator": indicator.value}
            await self.insert_once(BreachRow, breach)
        else:
            mine = sa.and_(of_deployment(BreachRow, key), b.c.version == version, b.c.indicator == indicator.value)
            await self._drop(BreachRow, mine)

    # --- retention

    async def drop_expired(self, now: datetime, retention: Retention) -> None:
        answers_before = now - timedelta(hours=retention.answer_hours)
        await self._drop(AnswerRow, columns(AnswerRow).c.at < answers_before)
        await self._drop(FeedbackRow, columns(FeedbackRow).c.at < answers_before)
        await self._drop(MinuteRow, columns(MinuteRow).c.minute < now - timedelta(hours=retention.minute_hours))
        inbox = columns(InboxRow)
        old = inbox.c.handled_at < now - timedelta(hours=retention.inbox_hours)
        await self._drop(InboxRow, sa.and_(inbox.c.topic == InferenceLogged.topic, old))
        for watch in await self.watches():
            await self._drop_beyond(AnswerRow, "at", watch.key, retention.answers)
            await self._drop_beyond(FeedbackRow, "at", watch.key, retention.answers)
            await self._drop_beyond(WindowRow, "number", watch.key, retention.windows)
            await self._drop_beyond(VerdictRow, "id", watch.key, retention.verdicts)

    async def _drop_beyond(self, table: type[SQLModel], order: str, key: DeploymentKey, most: int) -> None:
        column, mine = columns(table).c[order], of_deployment(table, key)
        newest_to_go = sa.select(column).where(mine).order_by(column.desc()).offset(most).limit(1)
        limit = (await self.execute(newest_to_go)).scalar()
        if limit is not None:
            await self._drop(table, sa.and_(mine, column <= limit))


def _in_parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), IN_LIST):
        yield names[start : start + IN_LIST]


def _items(requests: Mapping[str, int], answered: Mapping[str, Observation]) -> dict[str, list[tuple[str, int]]]:
    """By the name that feedback is stored under: the requests, each with the item, that it may be about."""
    items: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for request, count in requests.items():
        observation = answered.get(request, Observation())
        most = max([count, *(len(answer.answers) for answer in observation.answers)])
        for item, name in enumerate(item_keys(request, most)):
            items[name].append((request, item))
    return items


def _filtered(query: sa.Select[Any], table: sa.Table, **values: object) -> sa.Select[Any]:
    """Only the rows with these values; an empty value does not filter."""
    return query.where(*(table.c[name] == value for name, value in values.items() if value))


MonitorStore: TypeAlias = SqlStore[MonitorTx]


def store_on(database: Database, *, clock: Clock, ids: Ids, source: str) -> MonitorStore:
    """The store on a database, which must be open before use."""
    return SqlStore(database, lambda session: MonitorTx(session, clock=clock, ids=ids, source=source))
