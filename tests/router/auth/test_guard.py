"""With a key set, nothing but /health answers without it."""

from __future__ import annotations

import hmac
import logging
from pathlib import Path
from unittest import mock

import pytest

from router.app import endpoints
from router.reload import Reload
from tests.router.gateway import Gateway, Spec, whole
from tests.router.proxy.scripted import raw

pytestmark = pytest.mark.anyio

KEY = "a-long-secret-key"
KEYED = {"router": {"api_key_env": "GATEWAY_KEY"}, "environment": {"GATEWAY_KEY": KEY}}


def table(gateway: Gateway) -> list[tuple[str, str]]:
    found = [
        (one.method, one.path.replace("{model:path}", "one"))
        for one in endpoints(gateway.live, Reload(gateway.live), int)
    ]
    assert len(found) > 40
    return found


async def test_every_route_but_health_wants_the_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """401 with the right code without one and with a wrong one, in whatever form; no engine is asked."""
    caplog.set_level(logging.INFO)
    wrong = [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY} {KEY}"},
        {"authorization": "Bearer \xff\xfe".encode("latin-1")},
        {"x-api-key": KEY.upper()},
        {"authorization": "Bearer wrong", "x-api-key": KEY},
        {"cookie": KEY},
    ]
    async with whole(tmp_path, Spec("one"), **KEYED) as gateway:
        for method, path in table(gateway):
            for headers in wrong if path in ("/models", "/v1/messages") else wrong[:1]:
                refused = await gateway.client.request(method, path, headers=headers)  # type: ignore[arg-type]
                expected = 200 if path == "/health" else 401
                assert refused.status_code == expected, (method, path, headers)
                assert KEY not in refused.text + str(refused.headers)
        assert refused.headers["x-torpor-error-source"] == "gateway"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "missing_api_key"
        assert gateway.sims["one"].count("requests") == gateway.sims["one"].count("sleep_calls") == 0
        assert all(traffic.total == 0 for traffic in gateway.live.traffic.models.values())
    assert KEY not in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info]


async def test_other_spellings_of_a_path_are_guarded_too(tmp_path: Path) -> None:
    """Encoded, dotted, doubled, absolute, with odd Host headers and unknown methods."""
    targets = [
        *("/models", "/%6dodels", "//models", "/health/", "/health/../models", "/health%2f..%2fmodels"),
        *("/health;/models", "/health%00", "/health%0a", "/HEALTH", "/health/one", "/health%3fx"),
        *("/./health", "/health/all", "*"),
        *("http://x/models", "http://x/health/../models", "/", "", "/openapi.json", "/metrics", "/nothing"),
    ]  # fmt: skip
    async with whole(tmp_path, Spec("one"), **KEYED) as gateway:
        for target in targets:
            for host in ("x", "x/health", "x/health?", "", "health"):
                async with raw(gateway) as client:
                    await client.ask(f"GET {target} HTTP/1.1\nhost: {host}\nconnection: close")
                    status = (await client.rest()).split(b" ", 2)[1]
                    assert status in (b"401", b"400"), (target, host)
        for method in ("OPTIONS", "PUT", "DELETE", "HEAD", "TRACE"):
            assert (await gateway.client.request(method, "/models")).status_code == 401


async def test_the_right_key_opens(tmp_path: Path) -> None:
    """As a Bearer key in any case of the word, and as Anthropic's clients send it; it never reaches the engine."""
    async with whole(tmp_path, Spec("one"), **KEYED) as gateway:
        for headers in ({"authorization": f"Bearer {KEY}"}, {"authorization": f"bEARER  {KEY}"}, {"x-api-key": KEY}):
            opened = await gateway.client.get("/models", headers=headers)
            assert opened.status_code == 200
            assert KEY not in opened.text + str(opened.headers)
            body = {"model": "one", "prompt": "x", "max_tokens": 1}
            assert (await gateway.client.post("/v1/completions", json=body, headers=headers)).status_code == 200
        assert (await gateway.client.get("/health")).status_code == 200


async def test_a_key_is_compared_in_constant_time(tmp_path: Path) -> None:
    """Through hmac.compare_digest, whatever its length."""
    async with whole(tmp_path, Spec("one"), **KEYED) as gateway:
        with mock.patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
            for key in ("x", KEY):
                await gateway.client.get("/models", headers={"x-api-key": key})
    assert [call.args for call in compared.call_args_list] == [(b"x", KEY.encode()), (KEY.encode(), KEY.encode())]


async def test_refusals_have_the_shape_of_their_clients(tmp_path: Path) -> None:
    """Anthropic's on /v1/messages, OpenAI's elsewhere; the client's request id comes back."""
    async with whole(tmp_path, Spec("one"), **KEYED) as gateway:
        theirs = await gateway.client.post("/v1/messages", headers={"x-request-id": "mine"})
        ours = await gateway.client.post("/v1/responses", headers={"x-api-key": "wrong"})
    assert theirs.json()["type"] == "error"
    assert theirs.json()["error"]["type"] == "authentication_error"
    assert theirs.headers["x-request-id"] == "mine"
    assert ours.json()["error"] | {"message": ""} == {
        "message": "", "type": "authentication_error", "param": None, "code": "invalid_api_key",
    }  # fmt: skip


async def test_without_a_key_all_is_open(tmp_path: Path) -> None:
    """No key in the YAML, none asked for."""
    async with whole(tmp_path, Spec("one")) as gateway:
        assert (await gateway.client.get("/models")).status_code == 200
        assert (await gateway.client.get("/models", headers={"x-api-key": "any"})).status_code == 200
