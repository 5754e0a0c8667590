"""The gateway's receipts become those that every room has; keys that were used keep their answers."""

from alembic import op

from services.kit.persistence.sql.tables import create_receipts

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_index("ix_receipt_at", "receipt")
    op.rename_table("receipt", "former_receipt")
    if op.get_bind().dialect.name == "postgresql":  # a renamed table keeps the name of its key's index
        op.execute("ALTER INDEX receipt_pkey RENAME TO former_receipt_pkey")
    create_receipts(op)
    op.execute(
        "INSERT INTO receipt (tenant, key, fingerprint, answer, at) "
        "SELECT tenant, key, fingerprint, event || ' ' || trace, at FROM former_receipt"
    )
    op.drop_table("former_receipt")
