"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from services.kit.persistence.sql.tables import BigKey, UtcDateTime, create_first

revision = "0001"
down_revision = None


def _key() -> tuple["sa.Column[Any]", "sa.Column[Any]"]:
    return sa.Column("tenant", sa.String(), primary_key=True), sa.Column("deployment", sa.String(), primary_key=True)


def upgrade() -> None:
    create_first(op)
    _create_deployments()
    _create_requests()
    _create_windows()
    _create_verdicts()


def _create_deployments() -> None:
    op.create_table(
        "watch",
        *_key(),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("primary_version", sa.JSON(), nullable=True),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("cpu_variants", sa.JSON(), nullable=False),
        sa.Column("series", sa.JSON(), nullable=False),
        sa.Column("next_window", sa.Integer(), nullable=False),
        sa.Column("drift_published", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "rollout",
        *_key(),
        sa.Column("rollout", sa.String(), nullable=False),
        sa.Column("candidate", sa.Integer(), nullable=False),
        sa.Column("champion", sa.Integer(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("mirrors", sa.Boolean(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("step_since", UtcDateTime(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("tally", sa.JSON(), nullable=False),
        sa.Column("variants", sa.JSON(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("judging", sa.Boolean(), nullable=False),
        sa.Column("last_verdict", sa.JSON(), nullable=True),
    )


def _create_requests() -> None:
    op.create_table(
        "answer",
        *_key(),
        sa.Column("request", sa.String(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("mirrored", sa.Boolean(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("slow", sa.Boolean(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("variant", sa.String(), nullable=True),
        sa.Column("answers", sa.JSON(), nullable=False),
    )
    op.create_index("ix_answer_at", "answer", ["tenant", "deployment", "at"])
    op.create_table(
        "feedback",
        *_key(),
        sa.Column("item", sa.String(), primary_key=True),
        sa.Column("judgement", sa.JSON(), nullable=False),
        sa.Column("given_at", UtcDateTime(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_feedback_at", "feedback", ["tenant", "deployment", "at"])
    op.create_table(
        "minute",
        *_key(),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("minute", UtcDateTime(), primary_key=True),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("slow", sa.Integer(), nullable=False),
        sa.Column("labelled", sa.Integer(), nullable=False),
        sa.Column("right", sa.Integer(), nullable=False),
        sa.Column("histogram", sa.JSON(), nullable=False),
    )


def _create_windows() -> None:
    op.create_table(
        "sample",
        *_key(),
        sa.Column("window", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("text_key", sa.String(), nullable=True),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "window",
        *_key(),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("variant", sa.String(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Integer(), nullable=False),
        sa.Column("opened", UtcDateTime(), nullable=False),
        sa.Column("closed", UtcDateTime(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("test", sa.JSON(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
    )


def _create_verdicts() -> None:
    op.create_table(
        "verdict",
        sa.Column("id", BigKey, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("rollout", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_verdict_deployment", "verdict", ["tenant", "deployment"])
    op.create_table(
        "breach",
        *_key(),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("indicator", sa.String(), primary_key=True),
    )
