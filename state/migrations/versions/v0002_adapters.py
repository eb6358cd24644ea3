"""Adapters: what is wanted, where each is and what came of it, and all that happened to it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "adapters",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("origin", sa.String, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("phase", sa.String, nullable=False),
        sa.Column("conditions", sa.JSON, nullable=False),
        sa.Column("artifact", sa.String, nullable=True),
    )
    op.create_table(
        "adapter_places",
        sa.Column("adapter", sa.String, primary_key=True),
        sa.Column("instance", sa.String, primary_key=True),
        sa.Column("chosen", sa.Boolean, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float, nullable=False),
        sa.Column("problem", sa.String, nullable=False),
        sa.Column("process", sa.String, nullable=True),
    )
    _diary("adapter_history", "phase")
    _diary("adapter_events", "type")


def _diary(table: str, kind: str) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("adapter", sa.String, nullable=False, index=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column(kind, sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
    )


def downgrade() -> None:
    for table in ("adapter_events", "adapter_history", "adapter_places", "adapters"):
        op.drop_table(table)
