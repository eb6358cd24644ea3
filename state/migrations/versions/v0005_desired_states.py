"""What is wanted of each instance's process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "desired_states",
        sa.Column("instance", sa.String, primary_key=True),
        sa.Column("wanted", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("by", sa.String, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("desired_states")
