"""Who sleeps, and what the launcher started."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sleep_marks",
        sa.Column("instance", sa.String, primary_key=True),
        sa.Column("phase", sa.String, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("since", sa.Float, nullable=False),
        sa.Column("process", sa.String, nullable=True),
    )
    op.create_table(
        "launches",
        sa.Column("instance", sa.String, primary_key=True),
        sa.Column("session", sa.String, nullable=False),
        sa.Column("process", sa.String, nullable=False),
        sa.Column("argv", sa.JSON, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("launched_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("launches")
    op.drop_table("sleep_marks")
