"""The trainer's first tables."""

import sqlalchemy as sa
from alembic import op

from services.kit.persistence.sql.tables import BigKey, UtcDateTime, create_first

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_first(op)
    op.create_table(
        "trainer_dataset",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("announced", sa.JSON(), nullable=False),
        sa.Column("announced_at", UtcDateTime(), nullable=False),
        sa.Column("latest_run", sa.String(), nullable=False),
    )
    op.create_index("ix_trainer_dataset_model", "trainer_dataset", ["model"])
    op.create_table(
        "trainer_run",
        sa.Column("tenant", sa.String(), primary_key=True),
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failed_attempts", sa.Integer(), nullable=False),
        sa.Column("failure", sa.JSON(), nullable=True),
        sa.Column("artifact", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("trace_id", sa.String(), nullable=False),
    )
    op.create_index("ix_trainer_run_status", "trainer_run", ["status"])
    _create_traffic()


def _create_traffic() -> None:
    key = ("tenant", "deployment", "request")
    for name, content in (("trainer_text", "text"), ("trainer_label", "label")):
        op.create_table(
            name,
            sa.Column("position", BigKey, primary_key=True, autoincrement=True),
            *(sa.Column(column, sa.String(), nullable=False) for column in key),
            *([sa.Column("model", sa.String(), nullable=False)] if content == "text" else []),
            sa.Column(content, sa.Text() if content == "text" else sa.String(), nullable=False),
            sa.Column("at", UtcDateTime(), nullable=False),
        )
        op.create_index(f"ux_{name}_request", name, list(key), unique=True)
    op.create_index("ix_trainer_text_model", "trainer_text", ["tenant", "model", "at"])
