"""Responses by idempotency key."""

from alembic import op

from services.kit.persistence.sql.tables import create_idempotency_keys

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_idempotency_keys(op)
