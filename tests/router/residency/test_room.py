"""More models than fit, over real sockets: who is woken, who leaves, who waits, who is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.fleet.instance import STAGED
from controller.fleet.state import State
from controller.residency.memory import GIB
from tests.router.gateway import SGLANG, VLLM, Gateway, Spec, code_of, is_gibberish, text_of, until, whole
from tests.router.proxy.scripted import raw

pytestmark = pytest.mark.anyio

SETTINGS: dict[str, Any] = {
    "gpus": {0: {"memory_gib": 80}},
    "residency": {"min_awake_seconds": 0, "max_wait_seconds": 0.3},
    "sleep_manager": {"min_sleep_duration": 0, "wake_timeout_seconds": 10, "drain_timeout_seconds": 10},
}


def of(name: str, size: float = 30, options: Any = VLLM, **more: Any) -> Spec:
    return Spec(name, options, {"gpus": [0], "memory_gib": size, "asleep_memory_gib": 1, **more})


def awake(gateway: Gateway) -> set[str]:
    return {name for name, one in gateway.fleet.instances.items() if one.state is State.READY}


def used(gateway: Gateway) -> int:
    waker: Any = gateway.fleet.waker
    return int(waker.books().used["gpu0"])


async def begin(gateway: Gateway, *asleep: str) -> None:
    await gateway.put_to_sleep(*asleep)


@pytest.mark.parametrize("options", [VLLM, SGLANG], ids=["vllm", "sglang"])
async def test_three_of_thirty_on_eighty_take_turns(tmp_path: Path, options: Any) -> None:
    """The one that was used least lately leaves; all are answered, and never are three awake."""
    async with whole(tmp_path, *(of(name, options=options) for name in "abc"), **SETTINGS) as gateway:
        await begin(gateway, "a", "b", "c")
        assert used(gateway) == 3 * GIB
        for name, expected in (("a", "a"), ("b", "ab"), ("c", "bc"), ("b", "bc"), ("a", "ab"), ("c", "ac")):
            assert (await gateway.complete(name)).status_code == 200
            assert awake(gateway) == set(expected)
            assert used(gateway) == (30 * len(expected) + 3 - len(expected)) * GIB
        assert all(gateway.sims[name].count("requests_while_asleep") == 0 for name in "abc")


async def test_what_can_never_fit_is_told_at_once_with_the_arithmetic(tmp_path: Path) -> None:
    async with whole(tmp_path, of("small"), of("huge", 90), **SETTINGS) as gateway:
        await begin(gateway, "small", "huge")
        refused = await gateway.complete("huge")
        assert code_of(refused) == (503, "insufficient_gpu_memory")
        assert "90 GiB" in refused.text and "80 GiB" in refused.text
        by_hand = await gateway.wake("huge")
        assert code_of(by_hand) == (503, "insufficient_gpu_memory")
        assert (await gateway.complete("small")).status_code == 200


async def test_a_busy_model_is_not_touched_until_others_have_waited_long_enough(tmp_path: Path) -> None:
    """A stream of the hot one ends in peace; requests for it that come meanwhile wait, and are served after."""
    async with whole(tmp_path, of("hot", 60), of("cold", 60), **SETTINGS) as gateway:
        await begin(gateway, "cold")
        await gateway.complete("hot")
        sim = gateway.sims["hot"]
        before = sim.count("sleep_calls")
        sim.fault(silent_after_tokens={"tokens": 2, "times": 1})
        async with raw(gateway) as stream:
            await stream.post("/v1/completions", {"model": "hot", "prompt": "x", "stream": True, "max_tokens": 5})
            await stream.head()
            cold = asyncio.create_task(gateway.complete("cold"))
            await until(lambda: gateway.fleet.instances["hot"].firm)
            again = asyncio.create_task(gateway.complete("hot"))
            await until(lambda: gateway.fleet.models["hot"].waiting == 1)
            assert sim.count("sleep_calls") == before
        assert (await cold).status_code == 200
        assert (await again).status_code == 200
        assert awake(gateway) == {"hot"}


async def test_who_had_to_leave_may_come_back_at_any_time(tmp_path: Path) -> None:
    """``min_sleep_duration`` is for those that were idle."""
    longer = {**SETTINGS, "sleep_manager": {**SETTINGS["sleep_manager"], "min_sleep_duration": 60}}
    async with whole(tmp_path, of("a", 60), of("b", 60), **longer) as gateway:
        await begin(gateway, "b")
        assert (await gateway.client.post("/model/wake/b?force=true")).status_code == 200
        assert (await gateway.complete("a")).status_code == 200


async def test_who_waits_for_a_busy_one_is_not_told_of_its_own_wake_alone(tmp_path: Path) -> None:
    patient = {**SETTINGS, "residency": {"min_awake_seconds": 0, "max_wait_seconds": 60}}
    async with whole(tmp_path, of("hot", 60), of("cold", 60), **patient) as gateway:
        await begin(gateway, "cold")
        gateway.sims["hot"].fault(silent_after_tokens={"tokens": 2, "times": 1})
        async with raw(gateway) as stream:
            await stream.post("/v1/completions", {"model": "hot", "prompt": "x", "stream": True, "max_tokens": 5})
            await stream.head()
            cold = asyncio.create_task(gateway.complete("cold"))
            outlooks: Any = gateway.live.outlooks
            await until(lambda: outlooks.of("cold").cause == "everybody who could leave is busy")
            outlook = outlooks.of("cold")
            assert outlook.position == 1
            assert 60 < outlook.seconds + 5 < 75
        assert (await cold).status_code == 200


async def test_who_has_waited_in_vain_is_told_what_for(tmp_path: Path) -> None:
    """Whoever gives up last, too, though nobody is in the line then."""
    patient = {**SETTINGS, "residency": {"min_awake_seconds": 0, "max_wait_seconds": 60}}
    late = {"sleep_manager": {"wake_timeout_seconds": 0.3}}
    async with whole(tmp_path, of("hot", 60), of("cold", 60, **late), **patient) as gateway:
        await begin(gateway, "cold")
        gateway.sims["hot"].fault(silent_after_tokens={"tokens": 2, "times": 1})
        async with raw(gateway) as stream:
            await stream.post("/v1/completions", {"model": "hot", "prompt": "x", "stream": True, "max_tokens": 5})
            await stream.head()
            answer = await gateway.complete("cold")
        assert code_of(answer) == (503, "wake_timeout")
        assert "everybody who could leave is busy, position 1" in answer.json()["error"]["message"]
        await until(lambda: not gateway.live.arbiter.waiting)


async def test_room_is_made_for_a_wake_by_hand(tmp_path: Path) -> None:
    async with whole(tmp_path, of("a", 60), of("b", 60), **SETTINGS) as gateway:
        await begin(gateway, "b")
        assert (await gateway.client.post("/model/wake/b?force=true")).status_code == 200
        assert awake(gateway) == {"b"}


async def test_in_a_full_host_weights_are_dropped_for_those_that_have_to_be_kept(tmp_path: Path) -> None:
    """An SGLang with its weights backed up cannot drop them as it leaves. A vLLM that sleeps elsewhere does instead."""
    places = {"gpus": {0: {"memory_gib": 80}, 1: {"memory_gib": 80}}, "host": {"memory_gib": 70}}
    patient = {**SETTINGS, **places, "residency": {"min_awake_seconds": 0, "max_wait_seconds": 60}}
    kept = of("kept", 60, replace(SGLANG, enable_weights_cpu_backup=True))
    cold, far = of("cold", 60, sleep_manager={"level": 2}), of("far", 50, gpus=[1])
    async with whole(tmp_path, kept, cold, far, **patient) as gateway:
        await begin(gateway, "cold", "far")
        assert [gateway.instance(name).level for name in ("cold", "far")] == [2, 1]
        assert (await gateway.complete("cold")).status_code == 200
        assert [gateway.instance(name).level for name in ("kept", "far")] == [1, 2]
        assert awake(gateway) == {"cold"}
        for name in ("far", "kept"):
            assert not is_gibberish(text_of(await gateway.complete(name)))


async def test_of_an_exclusive_group_one_is_awake(tmp_path: Path) -> None:
    groups = {"big": {"members": ["a", "b"], "exclusive": True}}
    specs = Spec("a"), Spec("b"), Spec("free")
    async with whole(tmp_path, *specs, **{**SETTINGS, "groups": groups}) as gateway:
        await begin(gateway, "b", "free")
        for name in "bab":
            assert (await gateway.complete(name)).status_code == 200
            assert awake(gateway) == {name}
        assert (await gateway.complete("free")).status_code == 200
        assert awake(gateway) == {"b", "free"}


async def test_a_model_in_use_is_served_while_others_come_and_go(tmp_path: Path) -> None:
    """One model's eviction does not hold up another."""
    specs = of("pinned", 15), of("a"), of("b"), of("c")
    async with whole(tmp_path, *specs, models={"pinned": {"pinned": True}}, **SETTINGS) as gateway:
        await begin(gateway, "b", "c")
        for name in "bcab":
            asking = asyncio.create_task(gateway.complete(name))
            while not asking.done():
                assert (await gateway.complete("pinned")).status_code == 200
            assert (await asking).status_code == 200
        assert gateway.sims["pinned"].count("sleep_calls") == 0


async def test_many_models_asked_at_once_are_all_served(tmp_path: Path) -> None:
    """Five models, room for two, a hundred requests at once: each is answered, and the sum is never too large."""
    names = "abcde"
    most = 0

    def watch() -> None:
        nonlocal most
        most = max(most, used(gateway))

    async with whole(tmp_path, *(of(name, 35) for name in names), **SETTINGS) as gateway:
        await begin(gateway, *names)
        for one in gateway.fleet.instances.values():
            one.watchers.append(watch)
        answers = await asyncio.gather(*(gateway.complete(names[number % 5]) for number in range(100)))
        assert {answer.status_code for answer in answers} == {200}
        assert most <= 80 * GIB
        assert all(sim.count("requests_while_asleep") == 0 for sim in gateway.sims.values())


async def test_engines_that_were_started_all_at_once_are_put_to_sleep_until_they_fit(tmp_path: Path) -> None:
    async with whole(tmp_path, *(of(name) for name in "abcde"), **SETTINGS) as gateway:
        await until(lambda: used(gateway) <= 80 * GIB)
        assert len(awake(gateway)) == 2
        answers = [await gateway.complete(name) for name in "abcde"]
        assert {answer.status_code for answer in answers} == {200}


async def test_a_full_host_makes_them_drop_their_weights(tmp_path: Path) -> None:
    """The first one that sleeps fills the host; the second one sleeps at level 2, and wakes with its weights."""
    async with whole(tmp_path, of("a"), of("b"), host={"memory_gib": 40}, **SETTINGS) as gateway:
        await begin(gateway, "a", "b")
        levels = {name: gateway.fleet.instances[name].level for name in "ab"}
        assert sorted(levels.values()) == [1, 2]
        for name in "ab":
            assert (await gateway.complete(name)).status_code == 200


async def test_nobody_leaves_for_a_client_that_has_gone(tmp_path: Path) -> None:
    """While it drains, firmly even: its engine has not been told, so it serves on."""
    async with whole(tmp_path, of("hot", 60), of("cold", 60), **SETTINGS) as gateway:
        await begin(gateway, "cold")
        await gateway.complete("hot")
        before = gateway.sims["hot"].count("sleep_calls")
        gateway.sims["hot"].fault(silent_after_tokens={"tokens": 2, "times": 1})
        async with raw(gateway) as stream:
            await stream.post("/v1/completions", {"model": "hot", "prompt": "x", "stream": True, "max_tokens": 5})
            await stream.head()
            async with raw(gateway) as client:
                await client.post("/v1/completions", {"model": "cold", "prompt": "x"})
                await until(lambda: gateway.fleet.instances["hot"].firm)
            await until(lambda: gateway.state("hot") is State.READY)
            assert (await gateway.complete("hot")).status_code == 200
        assert gateway.sims["hot"].count("sleep_calls") == before
        assert not gateway.live.arbiter.leaving


async def test_a_staged_start_is_no_sleep_that_has_to_last(tmp_path: Path) -> None:
    """Its mark is as the launcher leaves it: the first request wakes it at once."""
    async with whole(tmp_path, Spec("one"), sleep_manager={"min_sleep_duration": 60}) as gateway:
        await gateway.fleet.transitions["one"].sleep(STAGED, 5)
        assert (await gateway.complete("one")).status_code == 200
        answer = await gateway.client.post("/action/sleep/one?staged=true")
        assert answer.status_code == 200, answer.text
        assert (await gateway.complete("one")).status_code == 200
