"""What is behind each launch, so that it is counted also when the YAML has lost it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("launches", sa.Column("occupant", sa.JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("launches", "occupant")
