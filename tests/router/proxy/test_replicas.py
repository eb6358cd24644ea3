"""Replicas: requests go where the model's policy says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.router.gateway import Gateway, replica_of, whole

pytestmark = pytest.mark.anyio


def three(policy: str, **more: Any) -> dict[str, Any]:
    return {"models": {"m": {"balancing": policy, **more}}}


async def homes(gateway: Gateway, requests: list[dict[str, Any]], headers: dict[str, str] | None = None) -> list[str]:
    answers = [
        await gateway.client.post(
            "/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 1} | one, headers=headers
        )
        for one in requests
    ]
    return [answer.headers["x-torpor-instance"] for answer in answers]


@pytest.mark.parametrize("policy", ["least_in_flight", "round_robin"])
async def test_equal_replicas_take_turns(tmp_path: Path, policy: str) -> None:
    """Six requests one after the other over three: two each."""
    async with whole(tmp_path, *(replica_of("m", name) for name in "abc"), **three(policy)) as gateway:
        assert Counter(await homes(gateway, [{}] * 6)) == {"a": 2, "b": 2, "c": 2}


async def test_weights_share_requests(tmp_path: Path) -> None:
    """A replica of weight three gets three of four."""
    heavy, light = replica_of("m", "heavy", weight=3), replica_of("m", "light")
    async with whole(tmp_path, heavy, light, **three("round_robin")) as gateway:
        assert Counter(await homes(gateway, [{}] * 8)) == {"heavy": 6, "light": 2}


async def test_sessions_stay(tmp_path: Path) -> None:
    """By the header, or by the field of the body; different sessions spread."""
    sections = three("session", session_header="X-Talk", session_field="user")
    async with whole(tmp_path, *(replica_of("m", name) for name in "abc"), **sections) as gateway:
        assert len(set(await homes(gateway, [{}] * 4, {"x-talk": "one"}))) == 1
        assert len(set(await homes(gateway, [{"user": "me"}] * 4))) == 1
        assert set(await homes(gateway, [{"user": f"u{number}"} for number in range(30)])) == {"a", "b", "c"}


async def test_a_body_without_a_session_that_can_be_read(tmp_path: Path) -> None:
    """It goes where any would, and is counted out."""
    async with whole(tmp_path, replica_of("m", "a"), **three("session", session_field="user")) as gateway:
        body = b'{"model": "m", "prompt": "x", "max_tokens": 1, "\xff": 1}'
        assert (await gateway.client.post("/v1/completions", content=body)).status_code in (200, 400)
        assert gateway.in_flight == 0


async def test_prompts_follow_their_beginning(tmp_path: Path) -> None:
    """Two long system prompts have a home each, whatever comes after, and whatever the temperature before."""
    async with whole(tmp_path, *(replica_of("m", name) for name in "abc"), **three("prefix")) as gateway:
        first = [{"temperature": number, "prompt": "first " * 300 + str(number)} for number in range(4)]
        second = [{"prompt": "second " * 300 + str(number)} for number in range(4)]
        homes_of_first, homes_of_second = set(await homes(gateway, first)), set(await homes(gateway, second))
        assert len(homes_of_first) == len(homes_of_second) == 1
        assert homes_of_first != homes_of_second
