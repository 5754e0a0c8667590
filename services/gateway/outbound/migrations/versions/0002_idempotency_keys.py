"""The gateway's responses by idempotency key move to the table that every service has; used keys keep their answers."""

from alembic import op

from services.kit.persistence.sql.tables import create_idempotency_keys

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    create_idempotency_keys(op)
    op.execute(
        "INSERT INTO idempotency_key (tenant, key, fingerprint, answer, at) "
        "SELECT tenant, key, fingerprint, event || ' ' || trace, at FROM receipt"
    )
    op.drop_index("ix_receipt_at", "receipt")
    op.drop_table("receipt")
