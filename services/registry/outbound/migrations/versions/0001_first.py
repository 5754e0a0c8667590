"""The registry's first tables."""

import sqlalchemy as sa
from alembic import op

from services.kit.persistence.sql.tables import UtcDateTime, create_first

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_first(op)
    op.create_table(
        "registry_model",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_hash", sa.String(), nullable=False),
    )
    op.create_table(
        "registry_deployment",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_hash", sa.String(), nullable=False),
    )
    op.create_table(
        "registry_deployment_model",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("model", sa.String(), primary_key=True),
        sa.Column("deployment", sa.String(), primary_key=True),
    )
    op.create_table(
        "registry_replica",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("replica", sa.String(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("leaving", sa.Boolean(), nullable=False),
        sa.Column("reported_at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_registry_replica_reported_at", "registry_replica", ["reported_at"])
