"""The monitor's tables. Everything is keyed by tenant and deployment first."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from services.kit.persistence.sql.tables import BigKey, UtcDateTime


class WatchRow(SQLModel, table=True):
    """A deployment, the version whose traffic is tested, and how far its windows are."""

    __tablename__ = "watch"
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    model: str
    generation: int
    primary_version: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    context: dict[str, Any] = Field(sa_type=sa.JSON)
    cpu_variants: dict[str, str] = Field(sa_type=sa.JSON)
    series: dict[str, Any] = Field(sa_type=sa.JSON)
    next_window: int
    drift_published: bool


class RolloutRow(SQLModel, table=True):
    """The canary under judgement; at most one a deployment."""

    __tablename__ = "rollout"
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    rollout: str
    candidate: int
    champion: int
    since: datetime = Field(sa_type=UtcDateTime)
    mirrors: bool
    step: int
    step_since: datetime = Field(sa_type=UtcDateTime)
    requests: int
    tally: dict[str, Any] = Field(sa_type=sa.JSON)
    variants: dict[str, list[str]] = Field(sa_type=sa.JSON)
    context: dict[str, Any] = Field(sa_type=sa.JSON)
    judging: bool
    last_verdict: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)


class AnswerRow(SQLModel, table=True):
    """A version's first answer to a request."""

    __tablename__ = "answer"
    __table_args__ = (sa.Index("ix_answer_at", "tenant", "deployment", "at"),)
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    request: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    mirrored: bool
    at: datetime = Field(sa_type=UtcDateTime)
    ok: bool
    slow: bool
    task: str
    variant: str | None = None
    answers: list[Any] = Field(sa_type=sa.JSON)


class FeedbackRow(SQLModel, table=True):
    """The latest feedback on an item of a request; `at` is when it arrived."""

    __tablename__ = "feedback"
    __table_args__ = (sa.Index("ix_feedback_at", "tenant", "deployment", "at"),)
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    item: str = Field(primary_key=True)
    judgement: dict[str, Any] = Field(sa_type=sa.JSON)
    given_at: datetime = Field(sa_type=UtcDateTime)
    at: datetime = Field(sa_type=UtcDateTime)


class MinuteRow(SQLModel, table=True):
    """What a version did in one minute."""

    __tablename__ = "minute"
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    minute: datetime = Field(primary_key=True, sa_type=UtcDateTime)
    requests: int
    errors: int
    slow: int
    labelled: int
    right: int
    histogram: dict[str, int] = Field(sa_type=sa.JSON)


class SampleRow(SQLModel, table=True):
    """An input of a window that is being filled or waits for its test."""

    __tablename__ = "sample"
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    window: int = Field(primary_key=True)
    position: int = Field(primary_key=True)
    request: str
    at: datetime = Field(sa_type=UtcDateTime)
    text_key: str | None = None
    embedding: bytes


class WindowRow(SQLModel, table=True):
    """A closed window; without a verdict it waits for its test."""

    __tablename__ = "window"
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    version: int
    variant: str
    rows: int
    answered: int
    opened: datetime = Field(sa_type=UtcDateTime)
    closed: datetime = Field(sa_type=UtcDateTime)
    verdict: str | None = None
    test: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    reason: str


class VerdictRow(SQLModel, table=True):
    """A verdict on a canary, as it was published."""

    __tablename__ = "verdict"
    __table_args__ = (sa.Index("ix_verdict_deployment", "tenant", "deployment"),)
    id: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    tenant: str
    deployment: str
    rollout: str
    version: int
    step: int
    verdict: str
    reason: str
    requests: int
    evidence: list[dict[str, Any]] = Field(sa_type=sa.JSON)
    at: datetime = Field(sa_type=UtcDateTime)


class BreachRow(SQLModel, table=True):
    """An objective whose breach was published and that has not recovered."""

    __tablename__ = "breach"
    tenant: str = Field(primary_key=True)
    deployment: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    indicator: str = Field(primary_key=True)


MONITOR_TABLES: Final = (
    WatchRow,
    RolloutRow,
    AnswerRow,
    FeedbackRow,
    MinuteRow,
    SampleRow,
    WindowRow,
    VerdictRow,
    BreachRow,
)
