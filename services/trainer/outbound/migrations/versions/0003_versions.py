"""Data sets have versions, and a run tells who asked for it, with which recipe, and what file it read."""

import sqlalchemy as sa
from alembic import op

from services.kit.persistence.sql.tables import UtcDateTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "trainer_dataset_version",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("dataset", sa.String(), primary_key=True),
        sa.Column("content_hash", sa.String(), primary_key=True),
        sa.Column("announced", sa.JSON(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("announced_at", UtcDateTime(), nullable=False),
        sa.Column("latest_run", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=True),
    )
    first = ["tenant", "dataset", "first_at"]
    op.create_index("ix_trainer_dataset_version_first", "trainer_dataset_version", first)
    op.add_column("trainer_dataset", sa.Column("content_hash", sa.String(), nullable=True))
    op.create_index("ix_trainer_run_dataset", "trainer_run", ["dataset"])
    op.add_column("trainer_run", sa.Column("announced_hash", sa.String(), nullable=True))
    for name in ("content", "recipe"):
        op.add_column("trainer_run", sa.Column(name, sa.JSON(), nullable=True))
    op.add_column("trainer_run", sa.Column("deploy", sa.Boolean(), nullable=False, server_default=sa.true()))
    for name in ("started_by", "start_reason", "cancelled_by", "cancel_reason"):
        op.add_column("trainer_run", sa.Column(name, sa.String(), nullable=False, server_default=""))
