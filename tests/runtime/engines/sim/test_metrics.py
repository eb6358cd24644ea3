"""Metrics pages are parts of the real ones."""

from __future__ import annotations

import re

import pytest

from runtime.engines.sim.options import SimOptions
from tests.runtime.engines.sim.stage import CAPTURES, QUICK, SGLANG, sse, stage, value_of

pytestmark = pytest.mark.anyio

_LORA = {"vllm:lora_requests_info"}  # the capture was made without adapters


def families(page: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))


def label_sets(page: str) -> set[tuple[str, frozenset[str]]]:
    """Series names with the names of their labels."""
    series = re.findall(r"^([a-z_:]+)(?:\{(.*)\})? \S+$", page, re.M)
    return {(name, frozenset(re.findall(r'(\w+)="', labels))) for name, labels in series}


@pytest.mark.parametrize(("options", "name"), [(QUICK, "vllm-0.32"), (SGLANG, "sglang-0.5.23")])
async def test_page_is_a_subset_of_the_capture(options: SimOptions, name: str) -> None:
    """Names, types and label names are real; only sim: is ours."""
    captured = (CAPTURES / f"{name}-metrics.txt").read_text()
    async with stage(options) as sim:
        await sim.complete(stream=True)
        await sim.complete()
        page = (await sim.get("/metrics")).text
    ours = {family: kind for family, kind in families(page).items() if not family.startswith("sim:")}
    real = families(captured)
    if options.dialect == "sglang":  # its process metrics and _created lines live in another process
        ours = {family: kind for family, kind in ours.items() if family.startswith("sglang:")}
        ours = {family: kind for family, kind in ours.items() if not family.endswith("_created")}
    assert {family: real.get(family) for family in ours} == ours
    known = label_sets(captured)
    extra = {
        (series, labels)
        for series, labels in label_sets(page)
        if re.sub(r"_(bucket|sum|count)$", "", series) in ours and (series, labels) not in known
    }
    assert {series for series, _ in extra} <= {"vllm:cache_config_info"}


async def test_page_has_what_a_router_reads() -> None:
    """All names of the brief, after one request."""
    names = (
        "num_requests_running num_requests_waiting kv_cache_usage_perc engine_sleep_state prompt_tokens_total "
        "generation_tokens_total request_success_total num_preemptions_total prefix_cache_queries_total "
        "prefix_cache_hits_total cache_config_info time_to_first_token_seconds inter_token_latency_seconds "
        "e2e_request_latency_seconds request_queue_time_seconds request_prompt_tokens request_generation_tokens"
    )
    async with stage(QUICK) as sim:
        answer = await sim.get("/metrics")
        page = families(answer.text)
    assert {f"vllm:{name}" for name in names.split()} <= set(page)
    assert "process_start_time_seconds" in page
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"


async def test_tokens_are_counted_exactly() -> None:
    """Counters equal the usage of the replies, and the reasons are counted."""
    async with stage(QUICK) as sim:
        used = (await sim.complete(max_tokens=7)).json()["usage"]
        events = sse((await sim.complete(max_tokens=3, stream=True, stream_options={"include_usage": True})).text)
        more = events[-2][1]["usage"]
        metrics = await sim.metrics()
    assert value_of(metrics, "vllm:prompt_tokens_total") == used["prompt_tokens"] + more["prompt_tokens"]
    assert value_of(metrics, "vllm:generation_tokens_total") == 10
    assert value_of(metrics, "vllm:request_success_total", finished_reason="length") == 2
    assert value_of(metrics, "vllm:inter_token_latency_seconds_count") == 8
    assert value_of(metrics, "vllm:time_to_first_token_seconds_count") == 2
    assert value_of(metrics, "sim:requests_total") == 2


async def test_prompts_share_their_beginnings() -> None:
    """The second time, whole blocks of the prompt are hits; after a reset none are."""
    prompt = "once upon a time there was a dormouse " * 10
    async with stage(QUICK) as sim:
        await sim.complete(prompt)
        first = value_of(await sim.metrics(), "vllm:prefix_cache_hits_total")
        await sim.complete(prompt + "that slept")
        second = value_of(await sim.metrics(), "vllm:prefix_cache_hits_total")
        await sim.post("/reset_prefix_cache")
        await sim.complete(prompt)
        third = value_of(await sim.metrics(), "vllm:prefix_cache_hits_total")
    assert (first, second, third) == (0, 80, 80)
