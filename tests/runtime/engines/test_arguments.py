"""Reading flags out of arguments as argparse would, without knowing all of them."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.arguments import has_flag, option, options


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ("--port 1", "1"),
        ("--port=1", "1"),
        ("--port=", ""),
        ("--port 1 --port 2", "2"),
        ("--port=1 --port 2", "2"),
        ("--port 1 stray", "1"),
        ("--port -1", "-1"),
        ("--port", None),
        ("--port --host x", None),
        ("--host --port", None),
        ("--ports 1", None),
        ("--x --port=1", "1"),
        ("port 1", None),
        ("", None),
    ],
)
def test_the_value_of_a_flag(args: str, value: str | None) -> None:
    """In both spellings, the last flag wins, and a flag without value has none."""
    assert option(args.split(), "--port") == value


@pytest.mark.parametrize(
    ("args", "values"),
    [
        ("--name a b --x", ("a", "b")),
        ("--name=a b", ("a",)),
        ("--name a --name b c", ("b", "c")),
        ("--name", ()),
        ("--name a=b c=-1", ("a=b", "c=-1")),
        ("--served_name x", ()),
        ("", ()),
    ],
)
def test_all_values_of_a_flag(args: str, values: tuple[str, ...]) -> None:
    """As many as follow, up to the next flag; after = only that one."""
    assert options(args.split(), "--name") == values


@pytest.mark.parametrize(
    ("args", "there"),
    [
        ("--a", True),
        ("--a=1", True),
        ("--b --a", True),
        ("--b x --a y", True),
        ("--ab", False),
        ("a", False),
        ("", False),
    ],
)
def test_whether_a_flag_is_there(args: str, there: bool) -> None:
    """By its whole name."""
    assert has_flag(args.split(), "--a") is there


def test_underscores_are_dashes() -> None:
    """vLLM takes both; a value keeps its own."""
    args = ["--served_model_name", "a_b", "--enable_sleep_mode"]
    assert options(args, "--served-model-name") == ("a_b",)
    assert has_flag(args, "--enable-sleep-mode")


WORDS = st.lists(
    st.sampled_from(["--port", "--port=7", "--name", "--name=n", "--flag", "a", "b=c", "-1", "0.5"]), max_size=8
)


@given(WORDS)
def test_argparse_reads_the_same(words: list[str]) -> None:
    """Wherever a line of arguments is valid, we see what the engine will see."""
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--port")
    parser.add_argument("--name", nargs="+")
    parser.add_argument("--flag", action="store_true")
    try:
        read, _ = parser.parse_known_args(words)
    except argparse.ArgumentError:
        return
    assert option(words, "--port") == read.port
    assert options(words, "--name") == tuple(read.name or ())
    assert has_flag(words, "--flag") is read.flag
