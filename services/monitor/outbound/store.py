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
from services.monitor.domain.deployments import ClosedWindow, Place, Watch
from services.monitor.domain.drift import WindowVerdict
from services.monitor.domain.observations import Answer, Known, TimedFeedback
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
PLACE: Final = ["tenant", "deployment"]
IN_LIST: Final = 500
"""Names a query: both databases take more, none gets faster."""

Condition: TypeAlias = sa.ColumnElement[bool]


def at(table: type[SQLModel], place: Place) -> Condition:
    c = columns(table).c
    return sa.and_(c.tenant == place.tenant, c.deployment == place.deployment)


class MonitorTx(SqlUnitOfWork):
    """`ports.Tx` on SQL; see there for the promises."""

    async def _first(self, table: type[SQLModel], condition: Condition) -> Any:
        return (await self.execute(sa.select(columns(table)).where(condition))).first()

    async def _drop(self, table: type[SQLModel], condition: Condition) -> None:
        await self.execute(sa.delete(columns(table)).where(condition))

    async def alone(self, place: Place) -> None:
        if self.session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            name = f"monitor/{place.tenant}/{place.deployment}"
            await self.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))

    # --- what is watched

    async def watch(self, place: Place) -> Watch | None:
        row = await self._first(WatchRow, at(WatchRow, place))
        return converters.to_watch(row) if row is not None else None

    async def watches(self) -> list[Watch]:
        table = columns(WatchRow)
        found = await self.execute(sa.select(table).order_by(table.c.tenant, table.c.deployment))
        return [converters.to_watch(row) for row in found]

    async def save_watch(self, watch: Watch) -> None:
        await self.upsert(WatchRow, converters.of_watch(watch), keys=PLACE)

    async def rollout(self, place: Place) -> Rollout | None:
        row = await self._first(RolloutRow, at(RolloutRow, place))
        return converters.to_rollout(row) if row is not None else None

    async def save_rollout(self, rollout: Rollout) -> None:
        await self.upsert(RolloutRow, converters.of_rollout(rollout), keys=PLACE)

    async def drop_rollout(self, place: Place) -> None:
        await self._drop(RolloutRow, at(RolloutRow, place))

    # --- requests

    async def known(self, place: Place, requests: Mapping[str, int]) -> dict[str, Known]:
        found: dict[str, Known] = defaultdict(Known)
        a, f = columns(AnswerRow), columns(FeedbackRow)
        for some in _in_parts(sorted(requests)):
            mine = sa.select(a).where(at(AnswerRow, place), a.c.request.in_(some)).order_by(a.c.at, a.c.version)
            for row in await self.execute(mine):
                found[row.request] = found[row.request].with_answer(converters.to_answer(row))
        items = _items(requests, found)
        for some in _in_parts(sorted(items)):
            for row in await self.execute(sa.select(f).where(at(FeedbackRow, place), f.c.item.in_(some))):
                for request, item in items[row.item]:
                    found[request] = found[request].with_feedback(item, converters.to_feedback(row))
        return dict(found)

    async def known_since(self, place: Place, since: datetime) -> list[Known]:
        a = columns(AnswerRow)
        names = await self.execute(sa.select(a.c.request).where(at(AnswerRow, place), a.c.at >= since).distinct())
        known = await self.known(place, dict.fromkeys(names.scalars(), 1))
        return [known[name] for name in sorted(known)]

    async def add_answers(self, place: Place, answers: Sequence[tuple[str, Answer]]) -> None:
        if answers:
            values = [converters.of_answer(place, request, answer) for request, answer in answers]
            await self._insert_many(AnswerRow, values)

    async def save_feedback(self, place: Place, item: str, judged: TimedFeedback) -> None:
        values = {**converters.of_feedback(place, item, judged), "at": self._clock.now()}
        await self.upsert(FeedbackRow, values, keys=[*PLACE, "item"])

    async def _insert_many(self, table: type[SQLModel], values: list[dict[str, Any]]) -> None:
        connection = await self.session.connection()
        await connection.execute(sa.insert(columns(table)), values)

    async def count(self, place: Place, counts: Mapping[Minute, Counts]) -> None:
        keys = [*PLACE, "version", "minute"]
        m = columns(MinuteRow)
        for (version, minute), added in sorted(counts.items()):
            row = await self._first(
                MinuteRow, sa.and_(at(MinuteRow, place), m.c.version == version, m.c.minute == minute)
            )
            total = added if row is None else converters.to_counts(row) + added
            values = {**converters.of_place(place), "version": version, "minute": minute, **converters.of_counts(total)}
            await self.upsert(MinuteRow, values, keys=keys)

    async def counts(self, place: Place, since: datetime) -> dict[int, Counts]:
        m = columns(MinuteRow)
        found: dict[int, Counts] = defaultdict(Counts)
        for row in await self.execute(sa.select(m).where(at(MinuteRow, place), m.c.minute >= since)):
            found[row.version] += converters.to_counts(row)
        return dict(found)

    # --- windows

    async def samples(self, place: Place, window: int) -> tuple[Sample, ...]:
        s = columns(SampleRow)
        query = sa.select(s).where(at(SampleRow, place), s.c.window == window).order_by(s.c.position)
        return tuple(converters.to_sample(row) for row in await self.execute(query))

    async def add_samples(self, place: Place, window: int, first: int, samples: Sequence[Sample]) -> None:
        if samples:
            numbered = enumerate(samples, start=first)
            values = [converters.of_sample(place, window, position, sample) for position, sample in numbered]
            await self._insert_many(SampleRow, values)

    async def drop_samples(self, place: Place, window: int | None = None) -> None:
        mine = at(SampleRow, place)
        await self._drop(SampleRow, mine if window is None else sa.and_(mine, columns(SampleRow).c.window == window))

    async def save_window(self, window: ClosedWindow) -> None:
        await self.upsert(WindowRow, converters.of_window(window), keys=[*PLACE, "number"])

    async def window(self, place: Place, number: int) -> ClosedWindow | None:
        row = await self._first(WindowRow, sa.and_(at(WindowRow, place), columns(WindowRow).c.number == number))
        return converters.to_window(row) if row is not None else None

    async def untested(self, place: Place, variant: Precision) -> list[int]:
        w = columns(WindowRow)
        waiting = sa.and_(at(WindowRow, place), w.c.variant == variant.value, w.c.verdict.is_(None))
        query = sa.select(w.c.number).where(waiting).order_by(w.c.number)
        return list((await self.execute(query)).scalars())

    async def drop_untested(self, place: Place) -> None:
        await self._drop(WindowRow, sa.and_(at(WindowRow, place), columns(WindowRow).c.verdict.is_(None)))

    async def tested_windows(
        self, place: Place, limit: int, *, before: int = 0, version: int = 0, verdict: WindowVerdict | None = None
    ) -> list[ClosedWindow]:
        w = columns(WindowRow)
        query = sa.select(w).where(at(WindowRow, place), w.c.verdict.is_not(None))
        query = _chosen(query, w, version=version, verdict=verdict)
        if before:
            query = query.where(w.c.number < before)
        found = await self.execute(query.order_by(w.c.number.desc()).limit(limit))
        return [converters.to_window(row) for row in found]

    # --- verdicts and objectives

    async def add_verdict(self, verdict: RolloutVerdict) -> None:
        await self._insert_many(VerdictRow, [converters.of_verdict(verdict)])

    async def verdicts(
        self,
        place: Place,
        limit: int,
        *,
        before: int = 0,
        version: int = 0,
        verdict: Verdict | None = None,
        rollout: str = "",
    ) -> list[tuple[int, RolloutVerdict]]:
        v = columns(VerdictRow)
        query = _chosen(sa.select(v).where(at(VerdictRow, place)), v, version=version, verdict=verdict, rollout=rollout)
        if before:
            query = query.where(v.c.id < before)
        found = await self.execute(query.order_by(v.c.id.desc()).limit(limit))
        return [(row.id, converters.to_verdict(row)) for row in found]

    async def breached(self, place: Place) -> set[tuple[int, Indicator]]:
        found = await self.execute(sa.select(columns(BreachRow)).where(at(BreachRow, place)))
        return {(row.version, Indicator(row.indicator)) for row in found}

    async def set_breached(self, place: Place, version: int, indicator: Indicator, *, breached: bool) -> None:
        b = columns(BreachRow)
        if breached:
            key = {**converters.of_place(place), "version": version, "indicator": indicator.value}
            await self.insert_once(BreachRow, key)
        else:
            mine = sa.and_(at(BreachRow, place), b.c.version == version, b.c.indicator == indicator.value)
            await self._drop(BreachRow, mine)

    # --- retention

    async def forget(self, now: datetime, retention: Retention) -> None:
        answers_before = now - timedelta(hours=retention.answer_hours)
        await self._drop(AnswerRow, columns(AnswerRow).c.at < answers_before)
        await self._drop(FeedbackRow, columns(FeedbackRow).c.at < answers_before)
        await self._drop(MinuteRow, columns(MinuteRow).c.minute < now - timedelta(hours=retention.minute_hours))
        inbox = columns(InboxRow)
        old = inbox.c.handled_at < now - timedelta(hours=retention.inbox_hours)
        await self._drop(InboxRow, sa.and_(inbox.c.topic == InferenceLogged.topic, old))
        for watch in await self.watches():
            await self._keep_newest(AnswerRow, "at", watch.place, retention.answers)
            await self._keep_newest(FeedbackRow, "at", watch.place, retention.answers)
            await self._keep_newest(WindowRow, "number", watch.place, retention.windows)
            await self._keep_newest(VerdictRow, "id", watch.place, retention.verdicts)

    async def _keep_newest(self, table: type[SQLModel], order: str, place: Place, most: int) -> None:
        column, mine = columns(table).c[order], at(table, place)
        newest_to_go = sa.select(column).where(mine).order_by(column.desc()).offset(most).limit(1)
        limit = (await self.execute(newest_to_go)).scalar()
        if limit is not None:
            await self._drop(table, sa.and_(mine, column <= limit))


def _in_parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), IN_LIST):
        yield names[start : start + IN_LIST]


def _items(requests: Mapping[str, int], answered: Mapping[str, Known]) -> dict[str, list[tuple[str, int]]]:
    """By the key that feedback is kept under: the requests, each with the item, that it may be about."""
    items: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for request, count in requests.items():
        known = answered.get(request, Known())
        most = max([count, *(len(answer.answers) for answer in known.answers)])
        for item, key in enumerate(item_keys(request, most)):
            items[key].append((request, item))
    return items


def _chosen(query: sa.Select[Any], table: sa.Table, **wanted: object) -> sa.Select[Any]:
    """Only the rows with these values; what is empty chooses nothing out."""
    return query.where(*(table.c[name] == value for name, value in wanted.items() if value))


MonitorStore: TypeAlias = SqlStore[MonitorTx]


def store_on(database: Database, *, clock: Clock, ids: Ids, source: str) -> MonitorStore:
    """The store on a database, which must be open before use."""
    return SqlStore(database, lambda session: MonitorTx(session, clock=clock, ids=ids, source=source))
