"""The books that are kept say the same as if they were made anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.config.model import Instance as InstanceConfig
from controller.fleet.instance import Instance
from controller.fleet.state import State
from controller.residency.books import Books
from controller.residency.footprint import Footprint
from controller.residency.ledger import Ledger
from tests.controller.fleet.stage import FakeEngine, Steps, config_of

NAMES = ("a", "b", "c")
FOOTPRINTS = st.builds(
    lambda size, place: Footprint({place: size}, {1: {place: 1, "host": size}, 2: {place: 1}}),
    st.integers(5, 50),
    st.sampled_from(["gpu0", "gpu1"]),
)


def instance(name: str) -> Instance:
    config: InstanceConfig = config_of(name)
    return Instance(config, FakeEngine(Steps(), tells=True))


@given(st.data())
def test_after_whatever_has_changed(data: st.DataObject) -> None:
    """States, levels, figures, who is about to wake, who joins and who has left: nobody has to tell."""
    ledger, there = Ledger(), {name: instance(name) for name in NAMES}
    for _ in range(10):
        name = data.draw(st.sampled_from(NAMES))
        if data.draw(st.integers(0, 4)) == 0:
            there.pop(name, None)
        one = there.setdefault(name, instance(name))
        one.state, one.level = data.draw(st.sampled_from(State)), data.draw(st.integers(0, 2))
        one.maybe_asleep = data.draw(st.booleans())
        one.gone, one.measured = data.draw(st.booleans()), data.draw(st.none() | FOOTPRINTS)
        if data.draw(st.booleans()):
            del there[name]
        granted = data.draw(st.sets(st.sampled_from(NAMES)))
        books = ledger.books(there, {"gpu0": 80}, granted)
        anew = Ledger().books(there, {"gpu0": 80}, granted)
        assert books.held == anew.held
        assert {place: size for place, size in books.used.items() if size} == Books.of({}, anew.held).used
