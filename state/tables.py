"""The tables, as SQLAlchemy sees them. ``migrations/`` makes them; a test keeps the two equal."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, Integer, MetaData, String, Table

metadata = MetaData()

sleep_marks = Table(
    "sleep_marks",
    metadata,
    Column("instance", String, primary_key=True),
    Column("phase", String, nullable=False),
    Column("level", Integer, nullable=False),
    Column("cause", String, nullable=False),
    Column("since", Float, nullable=False),
    Column("process", String, nullable=True),
)

launches = Table(
    "launches",
    metadata,
    Column("instance", String, primary_key=True),
    Column("session", String, nullable=False),
    Column("process", String, nullable=False),
    Column("argv", JSON, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("launched_at", Float, nullable=False),
)
