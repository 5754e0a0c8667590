"""The gateway's own table, beside the kit's."""

from datetime import datetime
from typing import Final

from sqlmodel import Field, SQLModel

from services.kit.sql.tables import UtcDateTime


class ReceiptRow(SQLModel, table=True):
    """What an idempotency key was answered with."""

    __tablename__ = "receipt"
    tenant: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    fingerprint: str
    event: str
    trace: str
    at: datetime = Field(sa_type=UtcDateTime, index=True)


TABLES: Final = (ReceiptRow,)
