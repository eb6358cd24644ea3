"""Bad parameters, unknown paths, and the engines' own paths that nobody reaches through the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.router.gateway import SGLANG, Spec, code_of, whole
from tests.router.proxy.scripted import answer, raw, scripted

pytestmark = pytest.mark.anyio

ADMIN = (
    *("sleep", "wake_up", "is_sleeping", "collective_rpc", "v1/load_lora_adapter", "v1/unload_lora_adapter"),
    *("server_info", "reset_prefix_cache", "release_memory_occupation", "resume_memory_occupation", "flush_cache"),
    *("update_weights_from_disk", "abort_request", "pause", "invocations", "inference/v1/generate", "generate"),
    *("load_lora_adapter", "start_profile", "sim/faults", "version", "ping", "docs", "v1/responses/resp_1/sleep"),
)
DISGUISES = (
    *("/{0}", "//{0}", "/{0}/", "/./{0}", "/v1/../{0}", "/v1/%2e%2e/{0}", "/v1/completions/../../{0}"),
    *("/v1%2f..%2f{0}", "/v1/..%2f{0}", "/%2f{0}", "/v1/completions%2f..%2f..%2f{0}", "/v1/completions;/../../{0}"),
    *("/v1\\..\\{0}", "/v1/completions%00/../../{0}", "http://x/{0}", "http://x/v1/../{0}", "/{1}", "/v1/..;/{0}"),
)


async def test_bad_parameters(tmp_path: Path) -> None:
    """400 with the parameter's name and the reason, on both sets of paths; good ones of odd form pass."""
    windows = ["x", "", "0", "-1", "86401", "1e9", "1.5", "NaN", "inf", "9" * 5000, "0x10", "--1"]
    thresholds = ["-1", "x", "", "nan", "-inf", "inf", "1e400", "-0.1"]
    async with whole(tmp_path, Spec("one")) as gateway:
        for path in ("/traffic/stats", "/model/traffic/stats", "/traffic/stats/one", "/model/traffic/stats/one"):
            await _refuses(gateway.client, path, "window", windows)
            await _refuses(gateway.client, path, "history", ["maybe", "2", "tru"])
            await _takes(gateway.client, path, "window", ["1", "86400", "3601"])
        for path in ("/models/idle", "/models/active", "/model/traffic/idle", "/model/traffic/active"):
            await _refuses(gateway.client, path, "threshold", thresholds)
            await _takes(gateway.client, path, "threshold", ["0", "0.5", "1e9", "86400000"])
        for path in ("/models/active", "/model/traffic/active"):
            await _refuses(gateway.client, path, "window", windows)
        for path in ("/model/wake/one", "/action/wakeup/one"):
            for force in ("maybe", "2", "null"):
                refused = await gateway.client.post(path, params={"force": force})
                assert code_of(refused) == (400, "invalid_parameter")
        assert (await gateway.client.get("/traffic/stats?window=5&window=x")).status_code == 400


async def _refuses(client: object, path: str, name: str, values: list[str]) -> None:
    for value in values:
        refused = await client.get(path, params={name: value})  # type: ignore[attr-defined]
        assert code_of(refused) == (400, "invalid_parameter"), (path, name, value[:20])
        assert refused.json()["error"]["param"] == name
        assert name in refused.json()["error"]["message"]
        assert len(refused.text) < 500


async def _takes(client: object, path: str, name: str, values: list[str]) -> None:
    for value in values:
        assert (await client.get(path, params={name: value})).status_code == 200, value  # type: ignore[attr-defined]


async def test_unknown_paths_and_methods(tmp_path: Path) -> None:
    """404 and 405 in OpenAI's shape, with Allow; nothing of a path breaks the answer."""
    async with whole(tmp_path, Spec("one")) as gateway:
        for path in (
            "/",
            "/v1",
            "/v1/engines",
            "/traffic",
            "/healthy",
            "/models/",
            "/v1/completions/",
            "/%ff",
            "/a%0d%0ab: c",
        ):
            missing = await gateway.client.get(path)
            assert code_of(missing) == (404, "unknown_path"), path
            assert missing.headers["x-torpor-error-source"] == "gateway"
        for method, path, allowed in (
            ("GET", "/v1/completions", "POST"),
            ("POST", "/models", "GET"),
            ("DELETE", "/v1/models/one", "GET"),
            ("GET", "/model/sleep/one", "POST"),
            ("PUT", "/action/wakeup/one", "POST"),
            ("OPTIONS", "/v1/chat/completions", "POST"),
            ("PATCH", "/health", "GET"),
        ):
            wrong = await gateway.client.request(method, path)
            assert code_of(wrong) == (405, "method_not_allowed"), (method, path)
            assert allowed in wrong.headers["allow"]
        assert (await gateway.client.head("/models")).status_code == 200
        assert (await gateway.client.get("/v1/completions%0a")).status_code == 404
        assert (await gateway.client.post("/v1/completions%0a", json={"model": "one"})).status_code == 404


async def test_admin_paths_never_reach_an_engine(tmp_path: Path) -> None:
    """In no disguise and with no method: whatever is answered, no engine was asked."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        for path in ADMIN:
            encoded = "".join(f"%{ord(character):02x}" for character in path)
            for disguise in DISGUISES:
                async with raw(gateway) as client:
                    for method in ("POST", "GET"):
                        target = disguise.format(path, encoded)
                        body = b'{"model": "one", "level": 1}'
                        await client.ask(f"{method} {target} HTTP/1.1\nhost: x\ncontent-length: {len(body)}", body)
                        status = (await client.reader.readline()).split(b" ")[1]
                        assert status in (b"404", b"405", b"400"), (method, target)
                        length = 0
                        while (line := await client.reader.readline()) not in (b"\r\n", b""):
                            if line.lower().startswith(b"content-length:"):
                                length = int(line[15:])
                        await client.reader.read(length)
                        if status == b"400":
                            break
        assert engine.received == []


@pytest.mark.parametrize("options", [None, SGLANG], ids=["vllm", "sglang"])
async def test_real_admin_paths_leave_the_engine_as_it_is(tmp_path: Path, options: object) -> None:
    """Its own counters say that nobody told it anything."""
    spec = Spec("one") if options is None else Spec("one", options)  # type: ignore[arg-type]
    async with whole(tmp_path, spec) as gateway:
        for path in ADMIN:
            for target in (f"/{path}", f"//{path}", f"/v1/%2e%2e/{path}"):
                assert (await gateway.client.post(target, json={"model": "one"})).status_code in (404, 405)
        sim = gateway.sims["one"]
        assert sim.count("sleep_calls") == sim.count("wake_calls") == sim.count("requests") == 0
        assert not sim.engine.asleep
