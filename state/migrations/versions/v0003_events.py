"""What happened to the fleet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("instance", sa.String, nullable=False),
        sa.Column("cause", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("seconds", sa.Float, nullable=True),
        sa.Column("level", sa.Integer, nullable=True),
    )


def downgrade() -> None:
    op.drop_table("events")
