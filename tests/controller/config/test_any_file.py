"""Whatever a file holds, it is a configuration or a ConfigError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.config.load import load
from controller.config.mistakes import ConfigError
from controller.config.schema import (
    ConfigFile,
    InstanceSection,
    LaunchSection,
    RouterSection,
    SleepSection,
    StateSection,
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(["~x/y", "${A}", "$${A}", "--port", "--port=1", "http://h:x", "all", "sim", "'", "\0", "\ud800"]),
    st.just(10**400),
)
KEYS = st.sampled_from(
    sorted(
        {
            key
            for section in (ConfigFile, InstanceSection, RouterSection, SleepSection, LaunchSection, StateSection)
            for key in section.model_fields
        }
    )
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5),
    max_leaves=15,
)


def section(model: type[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(list(model.model_fields)), VALUES, max_size=6)


INSTANCE = section(InstanceSection).map(lambda values: {"model": "m", "engine": "sim", **values})
FILES = st.fixed_dictionaries(
    {"instances": st.lists(INSTANCE | VALUES, max_size=3) | VALUES},
    optional={
        "kvcached": VALUES,
        "router": section(RouterSection) | VALUES,
        "sleep_manager": section(SleepSection) | VALUES,
        "launch": section(LaunchSection) | VALUES,
        "state": section(StateSection) | VALUES,
        "launch_delay_seconds": VALUES,
    },
)


def loads_or_tells(file: Path) -> None:
    try:
        config = load(file, {"A": "1"})
    except ConfigError as wrong:
        assert wrong.mistakes
        assert all(mistake.line >= 1 and mistake.problem for mistake in wrong.mistakes)
        assert len(str(wrong).splitlines()) == len(wrong.mistakes)
        str(wrong).encode()
    else:
        assert config.instances
        assert repr(config)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "any.yaml"


@settings(max_examples=250)
@given(FILES)
@example({"instances": [{"model": "m", "engine": "sim", "labels": {"\ud800": "\ud800"}, "\ud800": 1}]})
def test_any_values_in_known_places(file: Path, values: Any) -> None:
    """Wrong types, strange texts and half-right sections are mistakes, never another exception."""
    file.write_text(yaml.safe_dump(values), encoding="utf-8", errors="surrogatepass")
    loads_or_tells(file)


@settings(max_examples=150)
@given(st.text("abin:-[]{},'\"#&*!|>%@`? \n\t01.~=<$\\", max_size=60))
def test_any_text(file: Path, text: str) -> None:
    """What is no YAML is told as such."""
    file.write_text(text, encoding="utf-8")
    loads_or_tells(file)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes(file: Path, content: bytes) -> None:
    """What is no text is told as such."""
    file.write_bytes(content)
    loads_or_tells(file)


def test_a_large_file_is_read_in_time(file: Path) -> None:
    """A thousand instances are no trouble."""
    text = "instances:\n" + "".join(f"- {{model: m{i}, engine: sim, port: {2000 + i}}}\n" for i in range(1000))
    file.write_text(text)
    assert len(load(file, {}).instances) == 1000
