"""The kit's tables, and the receipts."""

import sqlalchemy as sa
from alembic import op

from services.kit.persistence.sql.tables import UtcDateTime, create_first

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_first(op)
    op.create_table(
        "receipt",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("trace", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_receipt_at", "receipt", ["at"])
