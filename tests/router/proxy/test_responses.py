"""What asks for a response, or goes on from one, reaches the instance that made it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.fleet.state import State
from router.proxy.responses import LOOKED_AT, SAID, Makers
from tests.router.gateway import VLLM, Gateway, Spec, code_of, replica_of, until, whole
from tests.router.proxy.scripted import Received, answer, chunk, raw, scripted

KEEPING = replace(VLLM, enable_responses_store=True)
SLOWLY_KEEPING = replace(KEEPING, tokens_per_second=20.0)
TAKING_TURNS: dict[str, Any] = {"models": {"m": {"balancing": "round_robin"}}}
PATHS = (("GET", ""), ("GET", "/input_items"), ("DELETE", ""), ("POST", "/cancel"))

anyio = pytest.mark.anyio


def pair(options: Any = KEEPING) -> tuple[Spec, Spec]:
    return replica_of("m", "a", options), replica_of("m", "b", options)


@asynccontextmanager
async def sdk(gateway: Gateway, **more: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{gateway.url.rstrip('/')}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="key", max_retries=0, timeout=10, **more) as client:
        yield client


async def create(gateway: Gateway, **fields: Any) -> tuple[str, str]:
    """The new response's id, and the instance that made it."""
    made = await gateway.client.post(
        "/v1/responses", json={"model": "m", "input": "x", "max_output_tokens": 3} | fields
    )
    assert made.status_code == 200, made.text
    return made.json()["id"], made.headers["x-torpor-instance"]


# -- what is remembered ----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40).map(str)), max_size=200), st.integers(1, 20))
def test_those_made_or_asked_for_last_are_remembered(steps: list[tuple[bool, str]], limit: int) -> None:
    """At least so many, and never more than twice as many; what is remembered is right."""
    makers, made, lately = Makers(limit), dict[str, str](), list[str]()
    for number, (is_new, one) in enumerate(steps):
        if is_new:
            makers.remember(one, f"instance {number}")
            made[one] = f"instance {number}"
        elif makers.of(one) is None:
            continue
        lately = [other for other in lately if other != one] + [one]
        assert len(makers._newer) + len(makers._older) <= 2 * limit
    for one in lately[-limit:]:
        assert makers.of(one) == made[one]


@pytest.mark.parametrize(
    ("beginning", "found"),
    [
        (b'{"id":"resp_1","object":"response"', b"resp_1"),
        (b'{"object": "response", "id" : "resp_ab-c.d:e~f_0"}', b"resp_ab-c.d:e~f_0"),
        (b'event: response.created\ndata: {"response":{"id":"resp_2"', b"resp_2"),
        (b'data: {"type":"response.created","response":{"id":"resp_3"', b"resp_3"),
        (b'{"previous_response_id":"resp_0","response_id":"resp_0","id":"resp_4"', b"resp_4"),
        (b'{"instructions":"say \\"id\\":\\"resp_0\\"","id":"resp_5"', b"resp_5"),
        (b'{"output":[{"id":"msg_1"}],"id":"resp_6"', b"resp_6"),
        (b'{"id":"resp_7', None),
        (b'{"id":"chatcmpl-1"}', None),
        (b'{"id":"resp_a/../b"}', None),
        (b'{"id":"resp_%b"}' % (b"x" * 300), None),
    ],
)
def test_the_id_is_found_in_the_beginning(beginning: bytes, found: bytes | None) -> None:
    """Of a body or of the first event; whole, and only if it can stand in a path."""
    match = SAID.search(beginning)
    assert (match[1] if match else None) == found


# -- the way back ----------------------------------------------------------------------------------------------------


@anyio
@pytest.mark.usefixtures("each_door")
async def test_a_response_is_asked_for_where_it_was_made(tmp_path: Path) -> None:
    """Fetched, cancelled, deleted, its input listed; answers and refusals are the engine's own."""
    async with whole(tmp_path, *pair(), **TAKING_TURNS) as gateway:
        made = [await create(gateway) for _ in range(4)]
        assert [instance for _, instance in made] == ["a", "b", "a", "b"]
        for response_id, instance in made * 2:
            for method, end in PATHS:
                found = await gateway.client.request(method, f"/v1/responses/{response_id}{end}")
                assert found.headers["x-torpor-instance"] == instance
                expected = {"": {"GET": 200, "DELETE": 405}, "/cancel": {"POST": 400}, "/input_items": {"GET": 404}}
                assert found.status_code == expected[end][method]
            fetched = (await gateway.client.get(f"/v1/responses/{response_id}")).json()
            assert fetched["id"] == response_id
            assert fetched["output"][0]["content"][0]["text"]
            assert (await gateway.client.head(f"/v1/responses/{response_id}")).content == b""
        assert gateway.in_flight == 0


@anyio
@pytest.mark.usefixtures("each_door")
async def test_the_sdk_makes_responses_in_the_background(tmp_path: Path) -> None:
    """Created, polled until it is done, cancelled on the way, read again as a stream from the middle."""
    async with whole(tmp_path, *pair(SLOWLY_KEEPING), **TAKING_TURNS) as gateway, sdk(gateway) as client:
        endless = [
            await client.responses.create(model="m", input="x", background=True, max_output_tokens=4000)
            for _ in range(2)
        ]
        short = [
            await client.responses.create(model="m", input="x", background=True, max_output_tokens=2) for _ in range(2)
        ]
        for response in endless:
            assert (await client.responses.retrieve(response.id)).status == "queued"
            assert (await client.responses.cancel(response.id)).status == "cancelled"
            assert (await client.responses.retrieve(response.id)).status == "cancelled"
        for response in short:
            await until(lambda: all(sim.running == 0 for sim in gateway.sims.values()))
            assert (await client.responses.retrieve(response.id)).output_text
            with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
                await client.responses.cancel(response.id)
            with pytest.raises(openai.APIStatusError) as refused:
                await client.responses.delete(response.id)
            assert refused.value.response.headers["x-torpor-error-source"] == "engine"
        stream = await client.responses.create(model="m", input="x", background=True, stream=True, max_output_tokens=3)
        events = [event async for event in stream]
        assert isinstance(events[0], openai.types.responses.ResponseCreatedEvent)
        again = await client.responses.retrieve(events[0].response.id, stream=True, starting_after=2)
        assert [event.type async for event in again] == [event.type for event in events[3:]]
        assert all(sim.running == 0 for sim in gateway.sims.values())


@anyio
@pytest.mark.usefixtures("each_door")
async def test_a_stream_is_known_from_its_first_event(tmp_path: Path) -> None:
    """Whoever has read the id may ask for it at once, while the stream goes on."""
    async with whole(tmp_path, *pair(SLOWLY_KEEPING), **TAKING_TURNS) as gateway, sdk(gateway) as client:
        for background in (True, False):
            stream = await client.responses.create(
                model="m", input="x", background=background, stream=True, max_output_tokens=100
            )
            first = await anext(aiter(stream))
            assert isinstance(first, openai.types.responses.ResponseCreatedEvent)
            found = await gateway.client.get(f"/v1/responses/{first.response.id}")
            assert found.headers["x-torpor-instance"] == stream.response.headers["x-torpor-instance"]
            assert found.status_code == (200 if background else 404)  # vLLM keeps one that is not when it is whole
            await stream.close()
        await until(lambda: gateway.in_flight == 0)


@anyio
async def test_a_follow_up_goes_to_the_one_before(tmp_path: Path) -> None:
    """However the model is balanced; by another name of the model too. One that nobody knows goes anywhere."""
    async with whole(
        tmp_path,
        *(replica_of("m", name, KEEPING, aliases=["gpt"]) for name in ("a", "b")),
        replica_of("other", "c", KEEPING),
        **TAKING_TURNS,
    ) as gateway:
        response_id, home = await create(gateway)
        for name in ("m", "gpt", "m"):
            response_id, instance = await create(gateway, previous_response_id=response_id, model=name)
            assert instance == home
        asked = {"model": "m", "input": "x", "previous_response_id": "resp_nobody"}
        answers = [await gateway.client.post("/v1/responses", json=asked) for _ in range(2)]
        assert [one.status_code for one in answers] == [404, 404]
        assert {one.headers["x-torpor-instance"] for one in answers} == {"a", "b"}
        elsewhere = asked | {"model": "other", "previous_response_id": response_id}
        assert (await gateway.client.post("/v1/responses", json=elsewhere)).headers["x-torpor-instance"] == "c"
        odd = await gateway.client.post("/v1/responses", json={"model": "m", "input": "x", "previous_response_id": 5})
        assert odd.headers["x-torpor-error-source"] == "engine"
        for body, code in (({"model": "nobody"}, "model_not_found"), ({}, "missing_parameter")):
            assert code_of(await gateway.client.post("/v1/responses", json=body))[1] == code


@anyio
async def test_who_sleeps_is_woken_for_its_responses(tmp_path: Path) -> None:
    """Though the other is awake; what only asks counts as the model's traffic too."""
    async with whole(tmp_path, *pair(), **TAKING_TURNS) as gateway:
        first, home = await create(gateway)
        body = {"model": "m", "input": "x", "previous_response_id": first}
        for method, path, asked in (("GET", f"/v1/responses/{first}", None), ("POST", "/v1/responses", body)):
            await gateway.put_to_sleep(home)
            before = gateway.live.traffic.models["m"].total
            found = await gateway.client.request(method, path, json=asked)
            assert (found.status_code, found.headers["x-torpor-instance"]) == (200, home)
            assert gateway.state(home) is State.READY
            assert gateway.live.traffic.models["m"].total == before + 1


@anyio
async def test_who_is_gone_has_lost_its_responses(tmp_path: Path) -> None:
    """What asks is told that the engine cannot be reached; what goes on is served by whoever is there."""
    async with whole(tmp_path, *pair(), **TAKING_TURNS) as gateway:
        response_id, home = await create(gateway)
        gateway.instance(home).enter_failed("gone")
        gateway.sims[home].fault(fail_health={"status": 500})
        asked = {"model": "m", "input": "x", "previous_response_id": response_id}
        went_on = await gateway.client.post("/v1/responses", json=asked)
        assert went_on.headers["x-torpor-instance"] != home
        assert went_on.headers["x-torpor-error-source"] == "engine"
        assert code_of(await gateway.client.get(f"/v1/responses/{response_id}")) == (502, "engine_unreachable")


# -- what nobody knows -----------------------------------------------------------------------------------------------


@anyio
async def test_an_unknown_response_is_a_404_that_says_why(tmp_path: Path) -> None:
    """Not made here, or not to be stored: no engine is asked. No id leads to any other path of an engine."""
    async with whole(tmp_path, *pair(), **TAKING_TURNS) as gateway:
        unstored, _ = await create(gateway, store=False)
        before = [sim.count("requests") for sim in gateway.sims.values()]
        for response_id in ("resp_nobody", unstored, "x", "resp_", "resp_%2e%2e", "..%20", f"resp_{'x' * 300}"):
            for method, end in PATHS:
                missing = await gateway.client.request(method, f"/v1/responses/{response_id}{end}")
                assert code_of(missing) == (404, "response_not_found"), response_id
                assert missing.json()["error"]["param"] == "response_id"
                assert "before the gateway was started" in missing.json()["error"]["message"]
                assert len(missing.text) < 600
        assert (await gateway.client.post("/v1/responses/resp_x")).status_code == 405
        assert (await gateway.client.get("/v1/responses/resp_x/other")).status_code == 404
        assert [sim.count("requests") for sim in gateway.sims.values()] == before
        assert gateway.live.traffic.models["m"].total == 1


@anyio
async def test_the_only_instance_is_asked_for_what_is_unknown(tmp_path: Path) -> None:
    """Nobody else can have made it: a gateway that was started anew still finds it. The path is what was checked."""
    async with scripted(tmp_path, answer(b'{"id":"resp_x"}')) as (gateway, engine):
        async with raw(gateway) as client:
            await client.ask("POST /v1/%72esponses/resp%5fx/cancel?a=%2e&b HTTP/1.1\nhost: x\ncontent-length: 2", b"{}")
            assert " 200 " in await client.head()
        (received,) = engine.received
        assert (received.target, received.body) == (b"/v1/responses/resp_x/cancel?a=%2e&b", b"{}")
        assert code_of(await gateway.client.post("/v1/responses/..%2fx/cancel"))[0] == 404


@anyio
async def test_the_sdk_deletes_and_lists_where_the_engine_can(tmp_path: Path) -> None:
    """vLLM cannot; another server behind the gateway may."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), sdk(gateway) as client:
        await client.responses.delete("resp_x")
        assert [item async for item in client.responses.input_items.list("resp_x", limit=5)] == []
        (deleted,) = engine.received
        assert (deleted.method, deleted.target) == (b"DELETE", b"/v1/responses/resp_x")


@anyio
async def test_keys_are_asked_for_and_kept(tmp_path: Path) -> None:
    """As on every path: the client's stays here, the engine's own goes there."""
    async with scripted(
        tmp_path,
        answer(b"{}"),
        {"api_key_env": "E"},
        {"K": "right", "E": "engine's"},
        router={"api_key_env": "K"},
    ) as (gateway, engine):
        for path in ("/v1/responses", "/v1/responses/resp_1/cancel"):
            body = {"model": "one", "input": "x"}
            assert code_of(await gateway.client.post(path, json=body))[1] == "missing_api_key"
            right = {"authorization": "Bearer right"}
            assert (await gateway.client.post(path, json=body, headers=right)).status_code == 200
            assert engine.received[-1].all("authorization") == [b"Bearer engine's"]
        assert len(engine.received) == 2


@anyio
@pytest.mark.parametrize("cut", range(1, 40, 3))
async def test_an_id_may_come_in_pieces(tmp_path: Path, cut: int) -> None:
    """And late in its answer, but not after all of it has been looked at. A refusal is not looked into."""
    body = b'{"object": "response", "id": "resp_in_pieces"}'

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (body[:cut], body[cut:]):
            writer.write(chunk(piece))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    async with scripted(tmp_path, script) as (gateway, _):
        made = await gateway.client.post("/v1/responses", json={"model": "one", "input": "x"})
        assert made.json()["id"] == "resp_in_pieces"
        assert gateway.live.makers.of("resp_in_pieces") == "one"


@anyio
@pytest.mark.parametrize(
    ("reply", "known"),
    [
        (answer(b'{"pad": "%b", "id": "resp_x"}' % (b"x" * (LOOKED_AT // 2))), True),
        (answer(b'{"id": "resp_x"}', "400 Bad Request"), False),
        (answer(b"no json"), False),
    ],
)
async def test_what_is_looked_at(tmp_path: Path, reply: bytes, known: bool) -> None:
    """The beginning of an answer that is none of a refusal."""
    async with scripted(tmp_path, reply) as (gateway, _):
        await gateway.client.post("/v1/responses", json={"model": "one", "input": "x"})
        assert (gateway.live.makers.of("resp_x") == "one") is known
