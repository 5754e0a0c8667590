"""The trainer's tables: data sets, runs, and the labelled traffic that a retraining learns from."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from services.kit.persistence.sql.tables import BigKey, UtcDateTime


class DatasetRow(SQLModel, table=True):
    """A data set as it was last announced."""

    __tablename__ = "trainer_dataset"
    tenant: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    model: str = Field(index=True)
    announced: dict[str, Any] = Field(sa_type=sa.JSON)
    announced_at: datetime = Field(sa_type=UtcDateTime)
    latest_run: str
    content_hash: str | None = None


class VersionRow(SQLModel, table=True):
    """One content that a data set has had."""

    __tablename__ = "trainer_dataset_version"
    __table_args__ = (sa.Index("ix_trainer_dataset_version_first", "tenant", "dataset", "first_at"),)
    tenant: str = Field(primary_key=True)
    dataset: str = Field(primary_key=True)
    content_hash: str = Field(primary_key=True)
    announced: dict[str, Any] = Field(sa_type=sa.JSON)
    first_at: datetime = Field(sa_type=UtcDateTime)
    announced_at: datetime = Field(sa_type=UtcDateTime)
    latest_run: str
    size_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    rows: int | None = None


class RunRow(SQLModel, table=True):
    """A run as its facts made it."""

    __tablename__ = "trainer_run"
    tenant: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    model: str
    dataset: str = Field(index=True)
    cause: str
    parent: int | None = None
    status: str = Field(index=True)
    progress: float
    progress_read: int = Field(default=0, sa_type=sa.BigInteger)
    spec: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    attempt: int
    failed_attempts: int
    executing: bool = False
    handle: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    failure: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    artifact: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    result: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    created_at: datetime = Field(sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    trace_id: str
    announced_hash: str | None = None
    content: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    recipe: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    deploy: bool = True
    started_by: str = ""
    start_reason: str = ""
    cancelled_by: str = ""
    cancel_reason: str = ""


class TextRow(SQLModel, table=True):
    """A text that a client asked about."""

    __tablename__ = "trainer_text"
    __table_args__ = (
        sa.Index("ux_trainer_text_request", "tenant", "deployment", "request", unique=True),
        sa.Index("ix_trainer_text_model", "tenant", "model", "at"),
    )
    position: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    tenant: str
    deployment: str
    request: str
    model: str
    text: str = Field(sa_type=sa.Text)
    at: datetime = Field(sa_type=UtcDateTime)


class LabelRow(SQLModel, table=True):
    """What somebody said the right answer to a request was."""

    __tablename__ = "trainer_label"
    __table_args__ = (sa.Index("ux_trainer_label_request", "tenant", "deployment", "request", unique=True),)
    position: int | None = Field(default=None, primary_key=True, sa_type=BigKey)
    tenant: str
    deployment: str
    request: str
    label: str
    at: datetime = Field(sa_type=UtcDateTime)


TABLES: Final = (DatasetRow, VersionRow, RunRow, TextRow, LabelRow)
