"""Engine pages, old and new, under the standard names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from runtime.engines.kinds import KINDS
from runtime.metrics.names import STANDARDS, VOCABULARIES
from runtime.metrics.standardize import (
    LARGEST_PAGE,
    Unparseable,
    joined,
    labelled,
    parse,
    relevant,
    standard_families,
    standardize,
)
from runtime.metrics.text import render

HERE = Path(__file__).parent
CAPTURES = HERE.parents[1] / "captures"
TORPOR = VOCABULARIES["torpor"]
PAGES = {
    "vllm-0.32": ("vllm", CAPTURES / "vllm-0.32-metrics.txt"),
    "sglang-0.5.23": ("sglang", CAPTURES / "sglang-0.5.23-metrics.txt"),
    "vllm-0.6": ("vllm", HERE / "pages/vllm-0.6.txt"),
    "sglang-0.4": ("sglang", HERE / "pages/sglang-0.4.txt"),
}
NOT_TOLD = {
    "vllm-0.32": {"lora_requests_info", "lora_slots", "lora_slots_used", "generation_throughput", "cache_hit_rate"},
    "sglang-0.5.23": {"num_preemptions", "lora_requests_info", "lora_slots", "lora_slots_used"},
}
"""What the captured engines did not have: no adapters were on, and vLLM has no such rates any more."""


def page(name: str) -> tuple[str, str]:
    """The kind of engine, and its page."""
    kind, file = PAGES[name]
    text = file.read_text()
    return kind, text.partition("\n\n")[2] if text.startswith("HTTP/") else text


def standard(name: str, vocabulary: str = "torpor", *, keep: bool = False) -> str:
    kind, text = page(name)
    return standardize(text, KINDS[kind].metrics, VOCABULARIES[vocabulary], keep_originals=keep)


def families(text: str) -> Mapping[str, Metric]:
    return {one.name: one for one in text_string_to_metric_families(text)}


def values(text: str) -> dict[str, float]:
    """Series as written, and their values."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


@pytest.mark.parametrize("name", PAGES)
def test_the_standard_page_is_as_it_was_found_good(name: str) -> None:
    """To the letter; a golden file is changed by hand, with its reason."""
    assert standard(name) == (HERE / f"golden/{name}.txt").read_text()


@pytest.mark.parametrize("name", NOT_TOLD)
def test_the_whole_standard_set_is_there(name: str) -> None:
    """Of both engines as they are today, but what they do not tell."""
    found = {one.removeprefix("torpor:") for one in families(standard(name))}
    assert found == STANDARDS.keys() - NOT_TOLD[name]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("name", PAGES)
def test_counters_end_in_total(name: str, vocabulary: str) -> None:
    """Both originals lose them all; here each is there, with the engine's value."""
    prefix = VOCABULARIES[vocabulary].prefix
    got, (kind, text) = values(standard(name, vocabulary)), page(name)
    for counter in ("prompt_tokens", "generation_tokens"):
        own = {series: value for series, value in values(text).items() if series.startswith(f"{kind}:{counter}_total")}
        assert own
        assert (
            own.items()
            == {
                series.replace(f"{prefix}{counter}_total", f"{kind}:{counter}_total"): value
                for series, value in got.items()
                if series.startswith(f"{prefix}{counter}_total")
            }.items()
        )


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_computed(name: str) -> None:
    """Each standard value is one of the engine's, with its labels."""
    kind, text = page(name)
    own = {(series.partition("{")[2], value) for series, value in values(text).items()}
    assert {(series.partition("{")[2], value) for series, value in values(standard(name)).items()} <= own
    assert kind


def test_kthenas_five() -> None:
    """The names that its dashboards ask for, of both engines."""
    five = {
        "kthena:generation_tokens",
        "kthena:num_requests_waiting",
        "kthena:time_to_first_token_seconds",
        "kthena:time_per_output_token_seconds",
        "kthena:e2e_request_latency_seconds",
    }
    for name in ("vllm-0.32", "sglang-0.5.23"):
        assert five <= families(standard(name, "kthena")).keys()


def test_aibrixs_names() -> None:
    """As its table has them; where it has none for an engine, ours is more."""
    table = {
        "vllm-0.32": "queue_size gpu_cache_usage_perc kv_cache_usage_perc prompt_tokens generation_tokens "
        "request_success time_to_first_token_seconds time_per_output_token_seconds e2e_request_latency_seconds",
        "sglang-0.5.23": "queue_size prompt_tokens generation_tokens time_to_first_token_seconds generation_throughput "
        "time_per_output_token_seconds e2e_request_latency_seconds cache_hit_rate token_usage",
    }
    for name, names in table.items():
        assert {f"aibrix:{one}" for one in names.split()} <= families(standard(name, "aibrix")).keys()


def test_the_newest_name_wins() -> None:
    """A page in between has both; the old one alone is still understood."""
    old = '# TYPE vllm:gpu_cache_usage_perc gauge\nvllm:gpu_cache_usage_perc{m="x"} 0.1\n'
    new = '# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{m="x"} 0.2\n'
    empty = "# TYPE vllm:kv_cache_usage_perc gauge\n"
    for text, value in ((old, 0.1), (old + new, 0.2), (new + old, 0.2), (empty + old, 0.1)):
        got = values(standardize(text, KINDS["vllm"].metrics, TORPOR, keep_originals=False))
        assert got == {'torpor:kv_cache_usage_perc{m="x"}': value}


def test_a_gauge_is_not_taken_for_the_counter_of_its_name() -> None:
    """SGLang has both under one name; the gauge goes back to 0."""
    gauge = "# TYPE sglang:num_retracted_reqs gauge\nsglang:num_retracted_reqs 9.0\n"
    counter = "# TYPE sglang:num_retracted_reqs_total counter\nsglang:num_retracted_reqs_total 4.0\n"
    rules = KINDS["sglang"].metrics
    assert standardize(gauge, rules, TORPOR, keep_originals=False) == ""
    for text in (gauge + counter, counter + gauge):
        got = values(standardize(text, rules, TORPOR, keep_originals=False))
        assert got == {"torpor:num_preemptions_total": 4.0}


@pytest.mark.parametrize(
    "text",
    [
        "vllm:prompt_tokens_total 5\n",
        "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 5\n",
        "# TYPE vllm:prompt_tokens_total untyped\nvllm:prompt_tokens_total 5\n",
        "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total 5 1700000000000\n# EOF\n",
    ],
)
def test_counters_are_known_however_they_are_declared(text: str) -> None:
    """Without a type, and with one that has no suffix."""
    families = parse(standardize(text, KINDS["vllm"].metrics, TORPOR))
    own = next(one for one in families if one.name == "torpor:prompt_tokens")
    assert (own.type, own.samples[0].name, own.samples[0].value) == ("counter", "torpor:prompt_tokens_total", 5.0)


def test_of_the_adapters_only_the_newest_series_is_current() -> None:
    """vLLM leaves every set it has ever seen."""
    got = [series for series in values(standard("vllm-0.6")) if series.startswith("torpor:lora_requests_info")]
    assert got == ['torpor:lora_requests_info{max_lora="2",running_lora_adapters="a,b",waiting_lora_adapters=""}']


@pytest.mark.parametrize("name", PAGES)
def test_originals_are_kept_as_they_are(name: str) -> None:
    """To the letter, before ours; dropped by option."""
    _, text = page(name)
    assert standard(name, keep=True) == text.rstrip() + "\n" + standard(name)


def test_a_standard_page_is_not_standardized_twice() -> None:
    """A sidecar before a sidecar adds no second family of one name."""
    once = standard("vllm-0.32", keep=True)
    assert standardize(once, KINDS["vllm"].metrics, TORPOR) == once


@pytest.mark.parametrize("text", ["<html>no</html>", "a{", 'a{b="c} 1', "a b", "{}", "a{b=} 1", "# TYPE a", "a" * 9])
def test_what_is_no_page_says_so(text: str) -> None:
    """Or is read as one, and gives nothing."""
    try:
        assert standardize(text, KINDS["vllm"].metrics, TORPOR, keep_originals=False) == ""
    except Unparseable as error:
        assert str(error)


def test_a_page_too_large_is_not_read() -> None:
    """Someone else's server, perhaps."""
    with pytest.raises(Unparseable):
        parse("#" * (LARGEST_PAGE + 1))


@settings(max_examples=200)
@given(st.text() | st.lists(st.sampled_from('vllm:a{b="c",} 1\n# TYPE HELP counter e\\'), max_size=60).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else comes out of the parser."""
    try:
        standardize(text, KINDS["vllm"].metrics, TORPOR)
    except Unparseable:
        pass


@pytest.mark.parametrize("name", PAGES)
def test_the_relevant_lines_are_enough(name: str) -> None:
    """Without the others the same comes out."""
    kind, text = page(name)
    rules = KINDS[kind].metrics
    assert standardize(relevant(text, rules), rules, TORPOR, keep_originals=False) == standard(name)


def test_a_page_without_relevant_lines_is_nothing() -> None:
    """Names that only look alike are none."""
    assert relevant("# TYPE x gauge\nx 1\nvllm_num_requests_running 1\n", KINDS["vllm"].metrics) == ""


def test_pages_of_several_engines_are_one() -> None:
    """Each family once, each sample with its instance; an engine's own label of that name gives way."""
    rules = KINDS["vllm"].metrics
    text = '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model="x",engine="0"} %d\n'
    pages = [
        labelled(standard_families(parse(text % number), rules, TORPOR), {"model": "m", "instance": f"m-{number}"})
        for number in (1, 2)
    ]
    whole = render(joined([family for one in pages for family in one]))
    assert whole.count("# TYPE") == 1
    assert values(whole) == {
        'torpor:num_requests_running{engine="0",instance="m-1",model="m"}': 1.0,
        'torpor:num_requests_running{engine="0",instance="m-2",model="m"}': 2.0,
    }


def test_every_rule_is_of_a_standard() -> None:
    """A misspelt one would never be seen."""
    for kind in KINDS.values():
        assert kind.metrics.keys() <= STANDARDS.keys()
