"""Sleep marks and launches: what is put is what comes back, the newest only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from state.database import StateError, open_database
from state.desired_states import DesiredState, DesiredStates, Wanted
from state.launches import Launch, Launches, Occupant
from state.sleep_marks import Phase, SleepMark, SleepMarks

pytestmark = pytest.mark.anyio

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
MARKS = st.builds(
    SleepMark,
    instance=NAMES,
    phase=st.sampled_from(Phase),
    level=st.integers(1, 2),
    cause=NAMES,
    since=st.floats(0, 4e9),
    process=st.none() | NAMES,
)
AMOUNTS = st.dictionaries(NAMES, st.integers(0, 2**40), max_size=2)
OCCUPANTS = st.builds(
    Occupant,
    model=NAMES,
    kind=NAMES,
    url=NAMES,
    awake=AMOUNTS,
    asleep=st.dictionaries(st.integers(1, 2), AMOUNTS, max_size=2),
)
LAUNCHES = st.builds(
    Launch,
    instance=NAMES,
    session=NAMES,
    process=NAMES,
    argv=st.lists(NAMES, max_size=4),
    environment=st.dictionaries(NAMES, NAMES, max_size=3),
    launched_at=st.floats(0, 4e9),
    occupant=st.none() | OCCUPANTS,
)
SLOW = settings(max_examples=15)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with open_database(f"sqlite:///{tmp_path}/s.db") as engine:
        yield engine


@SLOW
@given(st.lists(MARKS, max_size=4))
def test_marks_come_back_as_they_were_put(marks: list[SleepMark]) -> None:
    """The last mark of each instance, with every field."""

    async def put_and_get() -> None:
        async with open_database("sqlite://") as database:
            store = SleepMarks(database)
            for mark in marks:
                await store.put(mark)
            assert await store.all() == {mark.instance: mark for mark in marks}

    anyio.run(put_and_get)


@SLOW
@given(st.lists(LAUNCHES, max_size=4))
def test_launches_come_back_as_they_were_put(launches: list[Launch]) -> None:
    """The last launch of each instance, with every field."""

    async def put_and_get() -> None:
        async with open_database("sqlite://") as database:
            store = Launches(database)
            for launch in launches:
                await store.put(launch)
            assert await store.all() == {launch.instance: launch for launch in launches}

    anyio.run(put_and_get)


def mark(instance: str, phase: Phase = Phase.ASLEEP) -> SleepMark:
    return SleepMark(instance, phase, 1, "idle", 1.5, "7:1.00")


async def test_clearing_a_mark(database: AsyncEngine) -> None:
    """Only that instance's mark goes; clearing what is not there is no error."""
    store = SleepMarks(database)
    await store.put(mark("a"))
    await store.put(mark("b", Phase.WAKING))
    await store.clear("a")
    await store.clear("never")
    assert await store.all() == {"b": mark("b", Phase.WAKING)}


async def test_clearing_a_launch(database: AsyncEngine) -> None:
    """Only that instance's launch goes; clearing what is not there is no error."""
    store = Launches(database)
    launches = [Launch(name, f"s-{name}", "7:1.00", ["x"], {"A": "digest"}, 2.5) for name in "ab"]
    for launch in launches:
        await store.put(launch)
    await store.clear("a")
    await store.clear("never")
    assert await store.all() == {"b": launches[1]}


async def test_many_writers_at_once(database: AsyncEngine) -> None:
    """Writes of one process wait for each other instead of failing."""
    store = SleepMarks(database)
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(store.put, mark(f"i{number % 10}"))
    assert sorted(await store.all()) == [f"i{number}" for number in range(10)]


async def test_a_broken_database_is_a_state_error(database: AsyncEngine) -> None:
    """Whoever keeps a mark sees one kind of error, whatever the driver says."""
    async with database.begin() as connection:
        await connection.execute(text("DROP TABLE sleep_marks"))
    store = SleepMarks(database)
    with pytest.raises(StateError, match="read"):
        await store.all()
    with pytest.raises(StateError, match="written"):
        await store.put(mark("a"))
    with pytest.raises(StateError, match="written"):
        await store.clear("a")


async def test_desired_states_are_replaced_and_cleared(database: AsyncEngine) -> None:
    """The last word about each instance, several at once."""
    store = DesiredStates(database)
    first, second = DesiredState("a", Wanted.RUNNING, 1.5, "one"), DesiredState("b", Wanted.STOPPED, 2.5, "two")
    await store.put(first, second)
    again = DesiredState("a", Wanted.STOPPED, 3.5, "three")
    await store.put(again)
    assert await store.all() == {"a": again, "b": second}
    await store.clear("b")
    await store.clear("never")
    assert await store.all() == {"a": again}
