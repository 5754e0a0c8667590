"""A run knows what it was given, and the handle by which its execution is found."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for name in ("spec", "handle"):
        op.add_column("trainer_run", sa.Column(name, sa.JSON(), nullable=True))
    op.add_column("trainer_run", sa.Column("progress_read", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("trainer_run", sa.Column("executing", sa.Boolean(), nullable=False, server_default=sa.false()))
