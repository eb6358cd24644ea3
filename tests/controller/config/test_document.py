"""Reading YAML: variables, anchors, lines, and what no YAML is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controller.config.document import read

ENVIRONMENT = {"PORT": "8001", "NAME": "qwen", "EMPTY": "", "KEY": "0123", "SWITCH": "true", "WORD": "yes"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${PORT}", 8001),
        ("'${PORT}'", "8001"),
        ('"${PORT}"', "8001"),
        ("80${PORT}", 808001),
        ("--port=${PORT}", "--port=8001"),
        ("${NAME}-${PORT}", "qwen-8001"),
        ("${KEY}", "0123"),
        ("${SWITCH}", True),
        ("${WORD}", "yes"),
        ("${MISSING:-9}", 9),
        ("${MISSING:-}", None),
        ("'${MISSING:-}'", ""),
        ("${EMPTY:-9}", 9),
        ("${EMPTY}", None),
        ("'${EMPTY}'", ""),
        ("x${EMPTY}y", "xy"),
        ("${NAME:-other}", "qwen"),
        ("$${NAME}", "${NAME}"),
        ("$${NAME} ${NAME}", "${NAME} qwen"),
        ("$NAME", "$NAME"),
        ("'${}'", "${}"),
        ("'${1A}'", "${1A}"),
        ("'${MISSING:-http://x:1/}'", "http://x:1/"),
    ],
)
def test_variables_are_filled_in(written: str, value: Any) -> None:
    """Without quotes the result is read as YAML if nothing gets lost; in quotes it stays text; $${ is a plain ${."""
    document = read(f"key: {written}", ENVIRONMENT)
    assert document.mistakes == []
    assert document.values == {"key": value}
    assert type(document.values["key"]) is type(value)


def test_an_unset_variable_is_a_mistake_at_its_own_line() -> None:
    """The message names the variable and shows how to give a default."""
    (mistake,) = read("a: 1\nb:\n  - x\n  - ${MISSING}\n", {}).mistakes
    assert (mistake.line, mistake.key) == (4, "b[1]")
    assert "MISSING is not set" in mistake.problem
    assert "${MISSING:-…}" in mistake.fix


def test_a_variable_brings_no_yaml_along() -> None:
    """What a variable holds is a value, whatever it looks like."""
    assert read("key: ${V}", {"V": "{a: 1}\nb: 2"}).values == {"key": "{a: 1}\nb: 2"}


def test_merged_keys_are_below_own_ones() -> None:
    """An instance may take another's settings over and change some; an earlier source wins over a later one."""
    text = """
one: &one {a: 1, b: 1, c: 1}
two: &two {c: 2, d: 2}
both: {<<: [*one, *two], b: 3}
single: {b: 4, <<: *one}
"""
    document = read(text, {})
    assert document.mistakes == []
    assert document.values["both"] == {"a": 1, "b": 3, "c": 1, "d": 2}
    assert document.values["single"] == {"a": 1, "b": 4, "c": 1}


def test_an_alias_of_a_merging_mapping_is_not_taken_for_a_duplicate() -> None:
    """Own keys that override merged ones are given once, however often the mapping is used."""
    document = read("a: &a {x: 1}\nb: &b {<<: *a, x: 2}\nc: [*b, *b, *b]\nd: {<<: *b, x: 3}\n", {})
    assert document.mistakes == []
    assert document.values["c"] == [{"x": 2}] * 3
    assert document.values["d"] == {"x": 3}


@pytest.mark.parametrize(
    "text",
    ["a: &a [1, *a]", "a: &a {b: *a}", "a: &a {<<: *a}", "a: &a {b: {<<: *a}}", "&a [*a]", "a: &a {<<: [{c: 1}, *a]}"],
)
def test_an_anchor_that_contains_itself_is_a_mistake(text: str) -> None:
    """It is told with its line, and reading ends."""
    (mistake,) = read(f"\n{text}\n", {}).mistakes
    assert mistake.line == 2
    assert "contains itself" in mistake.problem


def test_duplicates_are_told_at_the_second_line() -> None:
    """Every key that is given twice, at any depth, once for each time too many."""
    found = read("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\na: 3\n", {}).mistakes
    assert sorted((mistake.line, mistake.key) for mistake in found) == [(5, "b.c"), (6, "a"), (7, "a")]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" if i else "a0: &a0 [x]" for i in range(12)),
        "\n".join(
            f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" if i else "a0: &a0 {x: 1}" for i in range(40)
        ),
        "[" * 5000,
        "a: " + "[" * 5000 + "]" * 5000,
        "a: " + "{b: " * 300 + "}" * 300,
    ],
    ids=["lists in lists", "merges in merges", "never closed", "deep lists", "deep mappings"],
)
def test_small_texts_that_stand_for_much_cost_little(text: str) -> None:
    """Neither memory, nor time, nor the stack runs out."""
    began = time.monotonic()
    document = read(text, {})
    assert time.monotonic() - began < 20
    assert document.mistakes or document.values["a39"] == {"x": 1}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1,\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\nb: \0\n", 2),
        ("a: 1\n\x1b[0m: 2\n", 2),
        ("a: 'x\n", 2),
        ("a: *nowhere\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\n? [x]\n: 2\n", 2),
        ("a: 1\nb: {<<: 5}\n", 2),
        ("%YAML 9.9\n---\na: 1\n", 1),
    ],
)
def test_what_is_no_yaml_is_a_mistake_with_its_line(text: str, line: int) -> None:
    """Nothing is raised; one mistake says where."""
    (mistake,) = read(text, {}).mistakes
    assert mistake.line == line
    assert mistake.problem.startswith("not valid YAML: ")


def test_a_variable_in_a_flow_list_needs_quotes() -> None:
    """YAML itself stumbles over the brace; the message says what to do."""
    (mistake,) = read("a:\n  b: [x, ${NAME}]\n", ENVIRONMENT).mistakes
    assert mistake.line == 2
    assert "must be in quotes" in mistake.fix
    assert read('b: [x, "${NAME}"]\n', ENVIRONMENT).values == {"b": ["x", "qwen"]}


@pytest.mark.parametrize(
    "scalar",
    ["2024-13-45", "!!int x", "!!float x", "!!timestamp x", "!!binary ä", "!custom x", "!!bool x", "=", "1" * 5000],
)
def test_a_value_that_cannot_be_read_is_a_mistake_of_its_key(scalar: str) -> None:
    """It does not hide what else is wrong."""
    document = read(f"a: 1\nb: {scalar}\nc: ${{MISSING}}\n", {})
    assert [(mistake.line, mistake.key) for mistake in document.mistakes] == [(2, "b"), (3, "c")]


def test_keys_are_text_as_written() -> None:
    """YAML would read `on` as true and 1.0 as a number; here a key is what stands in the file."""
    assert read("{on: 1, 1.0: 2, 7: 3, null: 4, 2024-13-45: 5}", {}).values == {
        "on": 1,
        "1.0": 2,
        "7": 3,
        "null": 4,
        "2024-13-45": 5,
    }


def test_lines_of_keys_and_items() -> None:
    """A path that is not in the file has the line of what would hold it."""
    document = read("a:\n  b:\n    - x\n    - y\nc: 1\n", {})
    assert [document.line(path) for path in [("a",), ("a", "b"), ("a", "b", 1), ("c",), ("a", "z"), ("q",)]] == [
        1, 2, 4, 5, 1, 1,
    ]  # fmt: skip
