"""Whether an adapter fits, and loading it twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.adapters import LARGEST_CONFIG, UnfitAdapter, check, is_name, load, put, read_config, unload
from runtime.engines.base import AlreadyLoaded, EngineTimeout
from runtime.engines.sim.options import SimOptions
from tests.runtime.engines.sim.stage import QUICK, SGLANG
from tests.runtime.engines.test_adapter_calls import connected, each_dialect, make_adapter

FITS: list[tuple[dict[str, Any], tuple[str, ...], int | None]] = [
    ({"r": 8}, (), None),
    ({"r": 8, "peft_type": "LORA"}, ("org/Llama",), 8),
    ({"r": 8, "base_model_name_or_path": "org/Llama"}, ("tiny", "/models/llama"), 16),
    ({"r": 8, "base_model_name_or_path": "/data/llama/"}, ("org/Llama",), 16),
    ({"r": 8, "base_model_name_or_path": "org/Llama"}, ("/c/hub/models--org--Llama/snapshots/0ab1",), None),
    ({"r": 8, "base_model_name_or_path": "org/Llama"}, ("other/Llama-AWQ",), None),
    ({"r": 8, "base_model_name_or_path": "org/Llama-Instruct"}, ("other/llama",), None),
    ({"r": 8, "base_model_name_or_path": None}, ("org/Llama",), 16),
    ({"r": 8, "base_model_name_or_path": ""}, ("org/Llama",), 16),
    ({"r": 8, "base_model_name_or_path": "org/Llama"}, (), None),
]
UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"r": 64}, "rank 64 is above the engine's max_lora_rank 16"),
    ({}, "rank r is None"),
    ({"r": 0}, "rank r is 0"),
    ({"r": True}, "rank r is True"),
    ({"r": "8"}, "rank r is '8'"),
    ({"r": 8, "peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING"),
    ({"r": 8, "base_model_name_or_path": "org/Other"}, "made for 'org/Other', and the engine serves 'org/Llama'"),
]


@pytest.mark.parametrize(("config", "bases", "rank"), FITS)
def test_what_fits(config: dict[str, Any], bases: tuple[str, ...], rank: int | None) -> None:
    """What is not told is not held against it."""
    assert check(config, bases, rank) is None


@pytest.mark.parametrize(("config", "reason"), UNFIT)
def test_what_does_not_fit_says_why(config: dict[str, Any], reason: str) -> None:
    """One reason, with the figures."""
    assert reason in (check(config, ("org/Llama",), 16) or "")


@pytest.mark.parametrize("name", ["a", "lora-a", "v1.0", "_x", "-x", "A" * 128])
def test_names(name: str) -> None:
    """As the specification has them."""
    assert is_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\n", "a b", "é", "A" * 129, "a\0", "base:a"])
def test_names_that_are_none(name: str) -> None:
    """Nothing that could leave its folder, or be two names."""
    assert not is_name(name)


def test_the_config_is_read_with_care(tmp_path: Path) -> None:
    """Missing, broken, too large: each says so."""
    file = tmp_path / "adapter_config.json"
    with pytest.raises(UnfitAdapter, match="No such file"):
        read_config(tmp_path)
    for text, reason in (("{", "not JSON"), ("[]", "not a JSON object"), (" " * (LARGEST_CONFIG + 1), "larger")):
        file.write_text(text)
        with pytest.raises(UnfitAdapter, match=reason):
            read_config(tmp_path)
    file.write_text('{"r": 8}')
    assert read_config(tmp_path) == {"r": 8}


@pytest.mark.anyio
@each_dialect
async def test_loading_twice_is_as_good_as_once(options: SimOptions, tmp_path: Path) -> None:
    """From the same path; from another it is refused, for the one that is loaded would answer. So with unloading."""
    first, second = make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b")
    async with connected(options) as (engine, _):
        await load(engine, "a", first)
        assert "loaded" in await load(engine, "a", first)
        with pytest.raises(AlreadyLoaded):
            await load(engine, "a", second)
        await unload(engine, "a")
        await unload(engine, "a")
        assert await engine.adapters() == {}


@pytest.mark.anyio
@pytest.mark.parametrize("options", [QUICK, SGLANG], ids=["vllm", "sglang"])
async def test_a_late_answer_is_asked_after(options: SimOptions, tmp_path: Path) -> None:
    """Not loaded: the timeout stands."""
    path = make_adapter(tmp_path / "a")
    async with connected(options, call_seconds=0.05) as (engine, sim):
        await sim.fault(slow_load={"seconds": 60, "times": 1})
        with pytest.raises(EngineTimeout):
            await load(engine, "a", path)


@pytest.mark.anyio
@each_dialect
async def test_one_takes_the_place_of_another(options: SimOptions, tmp_path: Path) -> None:
    """However the engine has it; twice is once, and afresh is loaded again."""
    first, second = make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b")
    async with connected(options) as (engine, _):
        for path in (first, second, second):
            assert await put(engine, "a", path)
            assert (await engine.adapters())["a"].path == path
        assert await put(engine, "a", second, afresh=True)
        assert (await engine.adapters())["a"].path == second


@pytest.mark.anyio
@each_dialect
async def test_a_late_exchange_is_asked_after(options: SimOptions, tmp_path: Path) -> None:
    """What the engine has not done by then is a timeout."""
    first, second = make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b")
    async with connected(options, call_seconds=0.05) as (engine, sim):
        await load(engine, "a", first)
        await sim.fault(slow_load={"seconds": 60})
        with pytest.raises(EngineTimeout):
            await put(engine, "a", second)


def test_a_base_is_named_once() -> None:
    """An engine is often served under its own name."""
    told = check({"r": 8, "base_model_name_or_path": "x/other"}, ("org/a", "org/a", "b"), None)
    assert told == "it was made for 'x/other', and the engine serves 'org/a', 'b'"
