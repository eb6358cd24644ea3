"""A real vLLM behind the gateway: launched, asked, put to sleep and stopped as users do it. Run by scripts/test-vllm.

The tests share one fleet and run in their order: the last ones take it down.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import psutil
import pytest
from openai import OpenAI

from tests.real.conftest import FAST, SLOW, Fleet, alive, family, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PROMPT = "Once upon a time"
LONG = 900
"""Tokens that keep the slow model busy for many seconds."""


def complete(client: OpenAI, model: str, tokens: int = 16) -> str:
    answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=tokens, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == tokens
    return answer.choices[0].text


# -- up ----------------------------------------------------------------------------------------------------------------


def test_the_launcher_brings_all_of_it_up(fleet: Fleet) -> None:
    """Two engines and the router, each in a session, each ready; ``--status`` says so and exits with 0."""
    shown = fleet.launch("--status")
    assert set(fleet.pids()) == {"fast", "slow", "frontend"}, shown.stdout + fleet.log("frontend")
    assert shown.returncode == 0
    rows = [line.split() for line in shown.stdout.splitlines()[1:]]
    assert {row[0]: "ready" in row for row in rows} == {"fast": True, "slow": True, "frontend": True}


def test_a_second_run_changes_nothing_that_is_healthy(fleet: Fleet) -> None:
    """It exits with 0, and every process is the one it was."""
    before = fleet.pids()
    again = fleet.launch(seconds=60)
    assert again.returncode == 0, again.stdout
    assert fleet.pids() == before
    assert again.stdout.count("runs already") == 3


# -- the OpenAI client -------------------------------------------------------------------------------------------------


def test_all_names_are_listed(client: OpenAI) -> None:
    """The models, the names their engines serve them by, an alias and the LoRA, which names its base."""
    cards = {card.id: card for card in client.models.list()}
    assert set(cards) == {FAST, "fast", "nickname", "lora", SLOW, "slow"}
    assert cards["lora"].to_dict()["parent"] == FAST
    assert client.models.retrieve("nickname").id == "nickname"


def test_chat(client: OpenAI) -> None:
    """An answer of as many tokens as asked for, with usage; streamed, the same text in many pieces, usage last."""
    ask = {"model": "fast", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**ask)  # type: ignore[call-overload]
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 24
    assert whole.choices[0].message.content.isascii()

    pieces = list(
        client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})  # type: ignore[call-overload]
    )
    assert len(pieces) > 10
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert pieces[-1].usage == whole.usage


def test_completions(client: OpenAI) -> None:
    """The same for the older API, by the engine's name, the model's and an alias alike."""
    text = complete(client, "fast")
    assert text == complete(client, FAST) == complete(client, "nickname")
    pieces = list(
        client.completions.create(
            model="nickname",
            prompt=PROMPT,
            max_tokens=16,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == text
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == 16


def test_a_lora_answers_by_its_name(client: OpenAI) -> None:
    """It is served, says its own name, and says something else than its base."""
    answer = client.completions.create(model="lora", prompt=PROMPT, max_tokens=16, temperature=0)
    assert answer.model == "lora"
    assert answer.choices[0].text != complete(client, "fast")


def test_responses_stream(client: OpenAI) -> None:
    """The Responses API passes through with its named events, from the first to the last."""
    with client.responses.create(model="fast", input="Hello", max_output_tokens=16, stream=True) as stream:
        events = list(stream)
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta")


def test_messages_stream(fleet: Fleet) -> None:
    """The Messages API passes through with its named events, from the first to the last."""
    ask = {"model": "fast", "max_tokens": 16, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    answer = fleet.http.post(f"{fleet.url('frontend')}/v1/messages", json=ask)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    assert "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert next(event for event in events if event["type"] == "message_delta")["usage"]["output_tokens"] == 16


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    """The client raises ``NotFoundError`` with OpenAI's code for it."""
    with pytest.raises(openai.NotFoundError) as raised:
        complete(client, "no-such-model")
    assert raised.value.code == "model_not_found"


def test_the_engines_400_comes_through_unchanged(fleet: Fleet, client: OpenAI) -> None:
    """Byte for byte what the engine says when asked directly; the client raises ``BadRequestError``."""
    ask = {"model": "fast", "prompt": PROMPT, "max_tokens": 100_000}
    direct, routed = (fleet.http.post(f"{fleet.url(name)}/v1/completions", json=ask) for name in ("fast", "frontend"))
    assert (routed.status_code, routed.content) == (direct.status_code, direct.content)
    with pytest.raises(openai.BadRequestError, match="max_model_len"):
        complete(client, "fast", tokens=100_000)


def test_embeddings_of_a_model_that_has_none(fleet: Fleet, client: OpenAI) -> None:
    """404 in the engine's own words; the client raises ``NotFoundError``."""
    ask = {"model": "fast", "input": "Hello"}
    routed = fleet.http.post(f"{fleet.url('frontend')}/v1/embeddings", json=ask)
    assert (routed.status_code, routed.json()) == (404, {"detail": "Not Found"})
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="fast", input="Hello")


# -- clients that leave ------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_in_mid_stream_ends_the_work(fleet: Fleet, client: OpenAI) -> None:
    """By the engine's own count one request runs, and none within a second of the client's leaving."""
    before = fleet.metric("slow", "vllm:generation_tokens_total")
    with client.completions.create(model="slow", prompt=PROMPT, max_tokens=LONG, stream=True) as stream:
        next(iter(stream))
        assert fleet.running("slow") == 1
    assert until(lambda: fleet.running("slow") == 0, 5) < 1
    assert fleet.metric("slow", "vllm:generation_tokens_total") - before < LONG / 2
    until(lambda: fleet.metric("frontend", "torpor_requests_in_flight") == 0, 1)
    assert fleet.metric("frontend", "torpor_requests_total", model=SLOW, outcome="cancelled") == 1


def test_a_client_that_gives_up_waiting_ends_the_work(fleet: Fleet, client: OpenAI) -> None:
    """The same for an answer that is not streamed."""
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(
            client.with_options(timeout=1.5).completions.create, model="slow", prompt=PROMPT, max_tokens=LONG
        )
        until(lambda: fleet.running("slow") == 1, 1.4)
        assert isinstance(asked.exception(10), openai.APITimeoutError)
    assert until(lambda: fleet.running("slow") == 0, 5) < 1


# -- sleep and wake ----------------------------------------------------------------------------------------------------


def test_sleep_by_hand_and_wake_by_a_request(fleet: Fleet, client: OpenAI) -> None:
    """The engine says that it sleeps, its metric that its weights are put away; a request wakes it, as it was."""
    text = complete(client, "fast")
    assert fleet.sleep("fast").json()["instances"] == {"fast": "asleep"}
    assert fleet.sleeps("fast")
    assert fleet.metric("fast", "vllm:engine_sleep_state", sleep_state="weights_offloaded") == 1
    assert "asleep" in fleet.launch("--status").stdout
    assert complete(client, "fast") == text
    assert not fleet.sleeps("fast")
    assert fleet.metric("fast", "vllm:engine_sleep_state", sleep_state="awake") == 1


def test_level_2_reads_the_weights_again(fleet: Fleet, client: OpenAI) -> None:
    """Asleep, the weights are dropped; the wake has its four steps in their order, and the answer is as before."""
    text = complete(client, "slow")
    assert fleet.sleep("slow").status_code == 200
    assert fleet.metric("slow", "vllm:engine_sleep_state", sleep_state="discard_all") == 1
    asleep = len(fleet.log("slow"))
    assert complete(client, "slow") == text
    log = fleet.log("slow")[asleep:]
    steps = ("/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache", "/reset_prefix_cache")
    places = [log.find(f"POST {step} ") for step in steps]
    assert min(places) >= 0
    assert places == sorted(places)


def test_sleep_waits_for_a_stream(fleet: Fleet, client: OpenAI) -> None:
    """Asked for in mid-stream: the stream comes to its own end, and only then the engine is put to sleep."""
    with (
        ThreadPoolExecutor() as pool,
        client.completions.create(
            model="slow", prompt=PROMPT, max_tokens=300, stream=True, stream_options={"include_usage": True}
        ) as stream,
    ):
        next(iter(stream))
        asked = pool.submit(fleet.sleep, "slow")
        until(lambda: fleet.state("slow") == "draining", 2)
        assert not fleet.sleeps("slow")
        assert fleet.running("slow") == 1
        pieces = list(stream)
        assert asked.result(30).status_code == 200
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "length"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == 300
    assert fleet.sleeps("slow")


def test_twenty_requests_to_a_sleeping_model(fleet: Fleet, client: OpenAI) -> None:
    """All are answered, after one wake."""
    text = complete(client, "fast")
    assert fleet.sleep("fast").status_code == 200
    woken = fleet.metric("frontend", "torpor_wakes_total", instance="fast", result="ok")
    with ThreadPoolExecutor(20) as pool:
        texts = list(pool.map(lambda _: complete(client, "fast"), range(20)))
    assert texts == [text] * 20
    assert fleet.metric("frontend", "torpor_wakes_total", instance="fast", result="ok") == woken + 1


# -- what dies ---------------------------------------------------------------------------------------------------------


def test_a_router_killed_while_a_model_sleeps(fleet: Fleet, client: OpenAI) -> None:
    """Its session starts it again; it knows who sleeps, and the next request is answered."""
    text = complete(client, "fast")
    assert fleet.sleep("fast").status_code == 200
    before = fleet.pids()
    router = set(psutil.Process(before["frontend"]).children(recursive=True))
    for process in router:
        process.kill()
    until(lambda: not alive(router), 5)
    again = fleet.launch(seconds=60)  # waits for it
    assert again.returncode == 0, again.stdout
    assert fleet.pids() == before
    assert (fleet.state("fast"), fleet.sleeps("fast")) == ("asleep", True)
    assert complete(client, "fast") == text


def test_an_engine_that_has_died_is_started_again(fleet: Fleet, client: OpenAI) -> None:
    """Its core killed, vLLM ends: who asks meanwhile waits until it is back, and nothing else is started."""
    text, before = complete(client, "fast"), fleet.pids()
    processes = family(before["fast"])
    core = next(one for one in processes if "EngineCore" in " ".join(one.cmdline()))
    core.kill()
    until(lambda: not alive(processes), 30)
    assert complete(client, "fast") == text
    after = fleet.pids()
    assert after.pop("fast") != before.pop("fast")
    assert after == before
    assert fleet.state("fast") == "ready"


def test_an_engine_whose_server_is_killed_leaves_nothing(fleet: Fleet, client: OpenAI) -> None:
    """Whatever outlives its API server is found and ended by ``--stop``."""
    processes = family(fleet.pids()["fast"])
    psutil.Process(fleet.pids()["fast"]).kill()
    assert fleet.launch("--stop", "fast").returncode == 0
    assert not alive(processes)
    assert set(fleet.pids()) == {"slow", "frontend"}
    assert complete(client, "slow")


def test_kill_all_leaves_no_process_behind(fleet: Fleet) -> None:
    """Engines, their workers and the router are gone, and so are their sessions and ports; a second time is fine."""
    processes = {one for pid in fleet.pids().values() for one in family(pid)}
    assert len(processes) > 3
    began = time.monotonic()
    assert fleet.launch("--kill-all").returncode == 0
    assert time.monotonic() - began < 30
    assert not alive(processes)
    assert fleet.pids() == {}
    for name in fleet.ports:
        with pytest.raises(httpx2.ConnectError):
            fleet.http.get(f"{fleet.url(name)}/health")
    assert fleet.launch("--kill-all").returncode == 0
    assert fleet.launch("--status").returncode == 1
