"""Responses that are kept: fetched again, made in the background, cancelled, gone on from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.patience import until
from tests.runtime.engines.sim.stage import QUICK, SGLANG, SLOW, Sim, sse, stage

pytestmark = pytest.mark.anyio

KEEPING = replace(QUICK, enable_responses_store=True)
SLOWLY_KEEPING = replace(SLOW, enable_responses_store=True)


async def status_of(sim: Sim, response_id: str) -> str:
    return str((await sim.get(f"/v1/responses/{response_id}")).json()["status"])


@pytest.mark.parametrize("options", [KEEPING, SGLANG], ids=["vllm", "sglang"])
async def test_stored_response_can_be_fetched(options: object) -> None:
    """GET gives what POST gave, streamed or not; not if it was not to be stored; an unknown id is 404."""
    async with stage(options) as sim:  # type: ignore[arg-type]
        made = (await sim.post("/v1/responses", {"input": "x"})).json()
        streamed = sse((await sim.post("/v1/responses", {"input": "y", "stream": True})).text)[-1][1]["response"]
        unkept = (await sim.post("/v1/responses", {"input": "x", "store": False})).json()
        assert (await sim.get(f"/v1/responses/{made['id']}")).json() == made
        assert (await sim.get(f"/v1/responses/{streamed['id']}")).json() == streamed
        for missing in (unkept["id"], "resp_nope"):
            assert (await sim.get(f"/v1/responses/{missing}")).status_code == 404
            assert (await sim.post(f"/v1/responses/{missing}/cancel")).status_code == 404
            follow_up = await sim.post("/v1/responses", {"input": "x", "previous_response_id": missing})
            assert follow_up.status_code == 404
        late = await sim.post(f"/v1/responses/{made['id']}/cancel")
        assert late.status_code == 400
        assert "Cannot cancel a synchronous response." in late.text


async def test_vllm_keeps_nothing_unless_told_to() -> None:
    """`store` is ignored without a word, `background` is refused."""
    async with stage(QUICK) as sim:
        made = await sim.post("/v1/responses", {"input": "x", "store": True})
        assert made.status_code == 200
        assert (await sim.get(f"/v1/responses/{made.json()['id']}")).status_code == 404
        refused = await sim.post("/v1/responses", {"input": "x", "background": True})
    assert refused.status_code == 400
    assert "VLLM_ENABLE_RESPONSES_API_STORE=1" in refused.json()["error"]["message"]


async def test_a_response_is_made_in_the_background() -> None:
    """Queued at once, whole later; cancelled in between, it stays so; not without `store`."""
    async with stage(SLOWLY_KEEPING) as sim:
        asked = {"input": "x", "background": True, "max_output_tokens": 4}
        made = (await sim.post("/v1/responses", asked)).json()
        assert (made["status"], made["background"]) == ("queued", True)
        assert await status_of(sim, made["id"]) == "queued"
        other = (await sim.post("/v1/responses", asked | {"max_output_tokens": 4000})).json()
        await sim.until_running(2)
        assert (await sim.post(f"/v1/responses/{other['id']}/cancel")).json()["status"] == "cancelled"
        await until(lambda: not sim.engine.scheduler.running)
        assert await status_of(sim, made["id"]) == "incomplete"
        assert await status_of(sim, other["id"]) == "cancelled"
        assert (await sim.post("/v1/responses", asked | {"store": False})).status_code == 400


async def test_a_stream_made_in_the_background_can_be_read_again() -> None:
    """The same events, from any number on; one that was not has none, and vLLM breaks off."""
    async with stage(KEEPING) as sim:
        asked = {"input": "x", "background": True, "stream": True, "max_output_tokens": 4}
        first = sse((await sim.post("/v1/responses", asked)).text)
        response_id = first[0][1]["response"]["id"]
        again = await sim.get(f"/v1/responses/{response_id}", params={"stream": "true"})
        assert sse(again.text) == first
        rest = await sim.get(f"/v1/responses/{response_id}", params={"stream": "true", "starting_after": 3})
        assert sse(rest.text) == first[4:]
        assert (await sim.get(f"/v1/responses/{response_id}?stream=true&starting_after=x")).status_code == 400
        assert (await sim.get(f"/v1/responses/{response_id}")).json() == first[-1][1]["response"]


async def test_a_follow_up_knows_what_was_said() -> None:
    """Its prompt holds the messages before it and the answer to them."""
    async with stage(KEEPING) as sim:
        first = (await sim.post("/v1/responses", {"input": "one two three"})).json()
        alone = (await sim.post("/v1/responses", {"input": "four"})).json()
        on = (await sim.post("/v1/responses", {"input": "four", "previous_response_id": first["id"]})).json()
    said = first["usage"]["input_tokens"] + first["usage"]["output_tokens"]
    assert on["usage"]["input_tokens"] > max(alone["usage"]["input_tokens"], said)
    assert on["previous_response_id"] == first["id"]
