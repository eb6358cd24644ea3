"""The tables, as SQLAlchemy sees them. ``migrations/`` makes them; a test keeps the two equal."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table

REVISION = "0006"
"""The migration that made them so."""

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
    Column("occupant", JSON, nullable=True),
)

desired_states = Table(
    "desired_states",
    metadata,
    Column("instance", String, primary_key=True),
    Column("wanted", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("by", String, nullable=False),
)

adapters = Table(
    "adapters",
    metadata,
    Column("name", String, primary_key=True),
    Column("origin", String, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("phase", String, nullable=False),
    Column("conditions", JSON, nullable=False),
    Column("artifact", String, nullable=True),
)

adapter_places = Table(
    "adapter_places",
    metadata,
    Column("adapter", String, primary_key=True),
    Column("instance", String, primary_key=True),
    Column("chosen", Boolean, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("next_at", Float, nullable=False),
    Column("problem", String, nullable=False),
    Column("process", String, nullable=True),
)

adapter_history = Table(
    "adapter_history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("adapter", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("phase", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", String, nullable=False),
)

adapter_events = Table(
    "adapter_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("adapter", String, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("type", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", String, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("time", Float, nullable=False),
    Column("what", String, nullable=False),
    Column("model", String, nullable=False),
    Column("instance", String, nullable=False),
    Column("cause", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("seconds", Float, nullable=True),
    Column("level", Integer, nullable=True),
)

footprints = Table(
    "footprints",
    metadata,
    Column("instance", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("awake", JSON, nullable=False),
    Column("asleep", JSON, nullable=False),
    Column("measured_at", Float, nullable=False),
)
