"""Arrival times and prompts: pure, and the same for the same seed."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load import Prompts, arrivals
from benchmarks.settings import Load, add_load_options, base_url, read_key

LOAD = Load(
    request_rate=None,
    concurrency=4,
    input_len=32,
    output_len=8,
    duration=3.0,
    num_requests=None,
    warmup=0,
    seed=1,
    stream=True,
    endpoint="chat",
    timeout=60.0,
)


@given(rate=st.floats(0.1, 1000), seed=st.text(max_size=5), duration=st.floats(0.01, 5))
def test_arrivals_lie_within_the_duration_and_never_go_back(rate: float, seed: str, duration: float) -> None:
    """Times rise, stay below the duration, and are the same for the same seed."""
    times = list(islice(arrivals(rate, seed, duration, None), 5000))

    assert times == sorted(times)
    assert all(0 <= time < duration for time in times)
    assert times == list(islice(arrivals(rate, seed, duration, None), 5000))


def test_arrivals_are_a_poisson_process() -> None:
    """At 100 a second, the mean gap is 10 ms and its deviation is as large as its mean."""
    times = list(arrivals(100.0, "x", None, 20_000))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5

    assert len(times) == 20_000
    assert mean == pytest.approx(0.01, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_another_seed_makes_other_times() -> None:
    """Two models, whose names are in the seed, are not asked at the same moments."""
    assert list(arrivals(5.0, "1 a", None, 5)) != list(arrivals(5.0, "1 b", None, 5))


@given(index=st.integers(0, 1_000_000), words=st.integers(1, 300))
def test_a_prompt_has_its_length_and_its_own_beginning(index: int, words: int) -> None:
    """A prompt is so many words, begins with the request's number, and is the same for the same seed."""
    load = replace(LOAD, input_len=words)
    body = json.loads(Prompts("m", load, engine_options=True).body(index))
    prompt = body["messages"][0]["content"].split()

    assert len(prompt) == max(2, words)
    assert prompt[0] == str(index)
    assert body == json.loads(Prompts("m", load, engine_options=True).body(index))


def test_another_seed_makes_other_prompts() -> None:
    """The seed changes the words."""
    one, other = (Prompts("m", replace(LOAD, seed=seed), engine_options=True).body(3) for seed in (1, 2))

    assert one != other


@pytest.mark.parametrize(
    ("changes", "engine_options", "expected"),
    [
        ({}, True, {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}),
        ({}, False, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, True, {"ignore_eos": True}),
        ({"stream": False, "endpoint": "completions"}, False, {}),
    ],
)
def test_a_body_says_what_the_engine_must_know(
    changes: dict[str, object], engine_options: bool, expected: dict[str, object]
) -> None:
    """Model and max_tokens always; ignore_eos only for engines that know it; usage asked for when streaming."""
    load = replace(LOAD, **changes)  # type: ignore[arg-type]
    body = json.loads(Prompts('org/"m"', load, engine_options=engine_options).body(0))
    text = body.pop("prompt") if load.endpoint == "completions" else body.pop("messages")[0]["content"]

    assert text
    assert body == {"model": 'org/"m"', "max_tokens": 8, **expected}


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--request-rate 2.5 --num-requests 7",
        "--concurrency 9 --duration 1.5 --no-stream --endpoint completions --seed -3",
        "--warmup 2 --timeout 5 --input-len 7 --output-len 9 --duration 2 --num-requests 3",
    ],
)
def test_a_load_survives_its_command_line(words: str) -> None:
    """What benchmark.py was told is what its clients do."""
    parser = argparse.ArgumentParser()
    add_load_options(parser)
    load = Load.of(parser.parse_args(words.split()))

    assert Load.of(parser.parse_args(load.argv())) == load


def test_without_an_end_a_load_lasts_half_a_minute() -> None:
    """Neither duration nor number given: 30 s. A number alone: no time limit."""
    parser = argparse.ArgumentParser()
    add_load_options(parser)

    assert Load.of(parser.parse_args([])).duration == 30
    assert Load.of(parser.parse_args(["--num-requests", "5"])).duration is None


@pytest.mark.parametrize("words", ["--concurrency 0", "--duration 0", "--request-rate inf", "--warmup -1"])
def test_impossible_loads_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A load that cannot be made ends the program with code 2."""
    parser = argparse.ArgumentParser()
    add_load_options(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words.split())

    assert ended.value.code == 2
    assert words.split()[0] in capsys.readouterr().err


def test_a_base_url_loses_what_openai_clients_add() -> None:
    """/v1 and a slash at the end are taken off; what is no address is refused."""
    assert base_url("http://h:1/v1/") == "http://h:1"
    with pytest.raises(argparse.ArgumentTypeError):
        base_url("h:1")


def test_a_key_that_is_named_must_be_there() -> None:
    """A variable that is not set is a mistake, not an absent key."""
    assert read_key(None, {}) is None
    assert read_key("K", {"K": "secret"}) == "secret"
    with pytest.raises(ValueError, match="K"):
        read_key("K", {})
