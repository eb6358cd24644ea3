"""What was measured is what comes back, the newest only."""

from __future__ import annotations

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from state.database import open_database
from state.footprints import Footprints, Measurement

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
AMOUNTS = st.dictionaries(st.sampled_from(["gpu0", "gpu1", "host"]), st.integers(0, 2**45))
MEASUREMENTS = st.builds(
    Measurement,
    instance=NAMES,
    digest=NAMES,
    awake=AMOUNTS,
    asleep=st.dictionaries(st.integers(1, 2), AMOUNTS),
    measured_at=st.floats(0, 4e9),
)


@settings(max_examples=15)
@given(st.lists(MEASUREMENTS, max_size=4))
def test_measurements_come_back_as_they_were_put(measurements: list[Measurement]) -> None:
    """The last of each instance, to the byte, its levels as numbers."""

    async def put_and_get() -> None:
        async with open_database("sqlite://") as database:
            store = Footprints(database)
            for measurement in measurements:
                await store.put(measurement)
            assert await store.all() == {one.instance: one for one in measurements}

    anyio.run(put_and_get)
