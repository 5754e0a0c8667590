"""The gateway's tables: batches, and the parts of their output."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from services.kit.persistence.sql.tables import UtcDateTime


class BatchRow(SQLModel, table=True):
    """A batch as its facts and its parts made it."""

    __tablename__ = "gateway_batch"
    tenant: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    deployment: str
    spec: dict[str, Any] = Field(sa_type=sa.JSON)
    created_by: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    status: str = Field(index=True)
    attempt: int
    stamp: str
    size_bytes: int = Field(sa_type=sa.BigInteger)
    parts: int
    rows: int
    failed_rows: int
    last_row: int
    read_bytes: int = Field(sa_type=sa.BigInteger)
    versions: list[int] = Field(sa_type=sa.JSON)
    failure: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    outcome: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    trace_id: str


class BatchPartRow(SQLModel, table=True):
    """A part of a batch's output that was written whole."""

    __tablename__ = "gateway_batch_part"
    tenant: str = Field(primary_key=True)
    batch: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    part: dict[str, Any] = Field(sa_type=sa.JSON)


TABLES: Final = (BatchRow, BatchPartRow)
