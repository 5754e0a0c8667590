"""The tables every service's database has: inbox, outbox, idempotency keys, timers, jobs and history.

`create_first` is what a service's first migration runs; it is frozen, and later changes are migrations of their own:
`create_idempotency_keys`.
"""

from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware UTC in and out on both databases; refuses a naive one."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


BigKey: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class InboxRow(SQLModel, table=True):
    """An event that was handled."""

    __tablename__ = "inbox"
    event: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    tenant: str = Field(primary_key=True)
    handled_at: datetime = Field(sa_type=UtcDateTime, index=True)


class OutboxRow(SQLModel, table=True):
    """An event that is to be sent; gone once the broker has it."""

    __tablename__ = "outbox"
    position: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    tenant: str
    topic: str
    key: str
    value: bytes
    headers: dict[str, str] = Field(sa_type=sa.JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)


class IdempotencyKeyRow(SQLModel, table=True):
    """What an idempotency key was used for first."""

    __tablename__ = "idempotency_key"
    tenant: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str
    answer: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_type=UtcDateTime, index=True)


class TimerRow(SQLModel, table=True):
    """Something to do at a given time."""

    __tablename__ = "timer"
    key: str = Field(primary_key=True)
    kind: str
    due: datetime = Field(sa_type=UtcDateTime, index=True)
    tenant: str
    payload: dict[str, Any] = Field(sa_type=sa.JSON)
    cause: dict[str, str] | None = Field(default=None, sa_type=sa.JSON)
    trace: dict[str, str] = Field(sa_type=sa.JSON)


class JobRow(SQLModel, table=True):
    """Work that takes long, and who has it."""

    __tablename__ = "job"
    id: str = Field(primary_key=True)
    kind: str = Field(index=True)
    tenant: str
    state: str = Field(index=True)
    payload: dict[str, Any] = Field(sa_type=sa.JSON)
    cause: dict[str, str] | None = Field(default=None, sa_type=sa.JSON)
    trace: dict[str, str] = Field(sa_type=sa.JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)
    due: datetime = Field(sa_type=UtcDateTime)
    owner: str = ""
    fence: int = 0
    attempt: int = 0


class HistoryRow(SQLModel, table=True):
    """A fact, numbered and chained to the one before it."""

    __tablename__ = "history"
    sequence: int = Field(primary_key=True, sa_type=BigKey)
    tenant: str
    stream: str = Field(index=True)
    kind: str
    payload: dict[str, Any] = Field(sa_type=sa.JSON)
    actor: str
    reason: str
    at: datetime = Field(sa_type=UtcDateTime)
    previous_hash: str
    hash: str


class HistoryHeadRow(SQLModel, table=True):
    """The one row that writers of the history lock."""

    __tablename__ = "history_head"
    id: int = Field(primary_key=True)
    sequence: int = Field(sa_type=BigKey)
    hash: str


KIT_TABLES: Final = (InboxRow, OutboxRow, IdempotencyKeyRow, TimerRow, JobRow, HistoryRow, HistoryHeadRow)


def create_first(op: Any) -> None:
    """The kit's tables as of every room's first migration."""
    op.create_table(
        "inbox",
        sa.Column("event", sa.String(), primary_key=True),
        sa.Column("topic", sa.String(), primary_key=True),
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("handled_at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_inbox_handled_at", "inbox", ["handled_at"])
    op.create_table(
        "outbox",
        sa.Column("position", BigKey, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "timer",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("due", UtcDateTime(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("cause", sa.JSON(), nullable=True),
        sa.Column("trace", sa.JSON(), nullable=False),
    )
    op.create_index("ix_timer_due", "timer", ["due"])
    _create_job(op)
    _create_history(op)


def create_idempotency_keys(op: Any) -> None:
    """What a room's migration runs that brings it idempotency keys."""
    op.create_table(
        "idempotency_key",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_idempotency_key_at", "idempotency_key", ["at"])


def _create_job(op: Any) -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("cause", sa.JSON(), nullable=True),
        sa.Column("trace", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("due", UtcDateTime(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
    )
    op.create_index("ix_job_kind", "job", ["kind"])
    op.create_index("ix_job_state", "job", ["state"])


def _create_history(op: Any) -> None:
    op.create_table(
        "history",
        sa.Column("sequence", BigKey, primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("stream", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
    )
    op.create_index("ix_history_stream", "history", ["stream"])
    op.create_table(
        "history_head",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("sequence", BigKey, nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
    )
