"""Down the ladder by idleness, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config.model import SleepSettings
from controller.fleet.state import State
from router.sleep.policy import Deeper, deeper
from tests.router.gateway import AT_ONCE, SGLANG, Spec, until, whole

pytestmark = pytest.mark.anyio


async def test_who_sleeps_on_drops_its_weights_and_comes_back_with_them(tmp_path: Path) -> None:
    settings = {**AT_ONCE, "level2_after_seconds": 0.05, "check_interval_seconds": 0.02}
    async with whole(tmp_path, Spec("one"), sleep_manager=settings) as gateway:
        await gateway.put_to_sleep("one")
        await until(lambda: gateway.state("one") is State.ASLEEP and gateway.instance("one").level == 2)
        assert gateway.instance("one").cause == "deeper"
        assert (await gateway.complete("one")).status_code == 200


async def test_who_has_sunk_may_be_woken_at_once(tmp_path: Path) -> None:
    """It has slept for long enough to get there: ``min_sleep_duration`` does not begin again."""
    settings = {"min_sleep_duration": 60, "level2_after_seconds": 0.05, "check_interval_seconds": 0.02}
    async with whole(tmp_path, Spec("one"), sleep_manager=settings) as gateway:
        await gateway.put_to_sleep("one")
        await until(lambda: gateway.state("one") is State.ASLEEP and gateway.instance("one").level == 2)
        assert gateway.instance("one").remaining_sleep() == 0
        assert (await gateway.complete("one")).status_code == 200


async def test_an_engine_with_one_level_stays_at_it(tmp_path: Path) -> None:
    settings = {**AT_ONCE, "level2_after_seconds": 0.0, "check_interval_seconds": 0.01}
    async with whole(tmp_path, Spec("one", SGLANG), sleep_manager=settings) as gateway:
        await gateway.put_to_sleep("one")
        sleeps = gateway.sims["one"].count("sleep_calls")
        await until(lambda: gateway.instance("one").sleep_duration() > 0.1)
        assert gateway.sims["one"].count("sleep_calls") == sleeps


@given(
    st.integers(0, 2),
    st.floats(0, 100),
    st.sampled_from([(1,), (2,), (1, 2)]),
    st.booleans(),
    st.none() | st.floats(0, 100),
    st.none() | st.floats(0, 100),
)
def test_each_step_has_its_own_time(
    level: int, asleep: float, levels: tuple[int, ...], can_stop: bool, second: float | None, stop: float | None
) -> None:
    settings = SleepSettings(level2_after_seconds=second, stop_after_seconds=stop)
    step = deeper(level, asleep, levels, can_stop, settings)
    assert (step is Deeper.STOP) == (can_stop and stop is not None and asleep >= stop)
    if step is Deeper.LEVEL_2:
        assert level == 1 and 2 in levels and second is not None and asleep >= second
