"""Responses by idempotency key."""

from alembic import op

from services.kit.persistence.sql.tables import create_receipts

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_receipts(op)
