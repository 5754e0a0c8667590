"""Batches over files, and the parts of their output."""

import sqlalchemy as sa
from alembic import op

from services.kit.persistence.sql.tables import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    texts = ("deployment", "created_by", "status", "stamp", "trace_id")
    numbers = ("attempt", "parts", "rows", "failed_rows", "last_row")
    op.create_table(
        "gateway_batch",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("id", sa.String(), primary_key=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in texts),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in numbers),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("size_bytes", "read_bytes")),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("spec", "versions")),
        *(sa.Column(name, sa.JSON(), nullable=True) for name in ("failure", "outcome")),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
    )
    op.create_index("ix_gateway_batch_status", "gateway_batch", ["status"])
    op.create_table(
        "gateway_batch_part",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("batch", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("part", sa.JSON(), nullable=False),
    )
