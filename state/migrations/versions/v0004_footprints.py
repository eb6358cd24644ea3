"""What engines were measured to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "footprints",
        sa.Column("instance", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("awake", sa.JSON, nullable=False),
        sa.Column("asleep", sa.JSON, nullable=False),
        sa.Column("measured_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("footprints")
