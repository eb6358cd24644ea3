"""Adapters are kept as they were put, and their diary only grows."""

from __future__ import annotations

import itertools

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.adapters import Adapters, AdapterState, Entry, Place
from state.database import open_database

pytestmark = pytest.mark.anyio

NAMES = st.sampled_from(["a", "b", "c"])
PLACES = st.builds(
    Place,
    chosen=st.booleans(),
    failures=st.integers(0, 6),
    next_at=st.floats(0, 4e9),
    problem=st.text("xyz"),
    process=st.none() | st.just("1:1"),
)
STATES = st.builds(
    AdapterState,
    name=NAMES,
    origin=st.sampled_from(["yaml", "api"]),
    spec=st.dictionaries(NAMES, st.text("xyz")),
    generation=st.integers(1, 9),
    created_at=st.floats(0, 4e9),
    phase=st.sampled_from(["Pending", "Running"]),
    conditions=st.lists(st.dictionaries(NAMES, st.text("xyz")), max_size=2),
    artifact=st.none() | st.just("/x"),
    places=st.dictionaries(NAMES, PLACES),
)
ENTRIES = st.lists(st.builds(Entry, st.floats(0, 4e9), NAMES, NAMES, NAMES), max_size=3)


@settings(max_examples=20)
@given(st.lists(st.tuples(STATES, ENTRIES, ENTRIES), max_size=5))
def test_what_is_put_is_what_comes_back(puts: list[tuple[AdapterState, list[Entry], list[Entry]]]) -> None:
    """The last state of each, and of the diaries everything, in order."""

    async def put_and_get() -> None:
        async with open_database("sqlite://") as database:
            store = Adapters(database)
            for state, history, events in puts:
                await store.put(state, history, events)
            kept = {state.name: state for state, *_ in puts}
            assert {state.name: state for state in await store.all()} == kept
            for name in kept:
                told = [(history, events) for state, history, events in puts if state.name == name]
                assert await store.history(name, 99) == list(itertools.chain.from_iterable(one for one, _ in told))
                assert await store.events(name, 99) == list(itertools.chain.from_iterable(one for _, one in told))

    anyio.run(put_and_get)


async def test_the_newest_of_a_long_diary() -> None:
    """Oldest first all the same."""
    entries = [Entry(float(number), "Normal", "r", "m") for number in range(5)]
    async with open_database("sqlite://") as database:
        store = Adapters(database)
        await store.put(AdapterState("a", "api", {}, 1, 0.0, "Pending"), entries, entries)
        assert await store.history("a", 2) == entries[3:]
        assert await store.events("a", 3) == entries[2:]


async def test_removing_leaves_nothing() -> None:
    """Of that adapter; the other one stays."""
    entry = [Entry(1.0, "Normal", "r", "m")]
    async with open_database("sqlite://") as database:
        store = Adapters(database)
        for name in "ab":
            await store.put(AdapterState(name, "api", {}, 1, 0.0, "Pending", places={"i": Place(True)}), entry, entry)
        await store.remove("a")
        await store.remove("never")
        assert [state.name for state in await store.all()] == ["b"]
        assert (await store.history("a", 9), await store.events("a", 9)) == ([], [])
        assert len(await store.events("b", 9)) == 1
