"""Every call of Kthena Runtime's document, and what it gets wrong, against both dialects."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runtime.downloads.listing import MARKER
from runtime.downloads.lock import only_writer
from runtime.engines.sim.options import SimOptions
from runtime.settings import Settings
from tests.runtime.downloads.stage import names
from tests.runtime.downloads.web_server import Page, web
from tests.runtime.engines.sim.stage import QUICK, SGLANG
from tests.runtime.sidecar.stage import Side, beside, options_for, running

pytestmark = pytest.mark.anyio

each_dialect = pytest.mark.parametrize("sim", [QUICK, SGLANG], ids=["vllm", "sglang"])


def load_of(side: Side, name: str, **more: Any) -> dict[str, Any]:
    body = {"lora_name": name, "source": side.adapter(name), "output_dir": side.path(name)}
    return body | {"config": {"hf_token": "<token>"}, "max_workers": 8, "async_download": False} | more


async def test_health_is_the_sidecars_own(tmp_path: Path) -> None:
    """With its engine gone, too."""
    async with running(options_for("http://127.0.0.1:9", "vllm", tmp_path)) as client:
        assert (await client.get("/health")).json() == {"status": "healthy", "service": "runtime"}
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/ready")).status_code == 503


@each_dialect
async def test_ready_asks_the_engine(sim: SimOptions, tmp_path: Path) -> None:
    """Without waking or touching a model."""
    async with beside(sim, tmp_path) as side:
        assert (await side.get("/ready")).json() == {"status": "ready"}


@each_dialect
async def test_download_and_load(sim: SimOptions, tmp_path: Path) -> None:
    """The engine's status and JSON, its plain text as a message; loaded from the folder that was named."""
    async with beside(sim, tmp_path) as side:
        answer = await side.post("/v1/load_lora_adapter", load_of(side, "my-lora"))
        assert answer.status_code == 200
        if sim.dialect == "vllm":
            assert answer.json() == {"message": "Success: LoRA adapter 'my-lora' added successfully."}
        else:
            assert answer.json()["success"] is True
        assert await side.loaded() == {"my-lora": side.path("my-lora")}
        assert names(tmp_path / "out/my-lora") == [MARKER, "adapter_config.json", "adapter_model.safetensors"]
        listed = (await side.get("/v1/lora_adapters")).json()["data"]
        assert listed == [{"lora_name": "my-lora", "path": side.path("my-lora"), "parent": "tiny"}]
        assert [card["id"] for card in (await side.get("/v1/models")).json()["data"]] == ["tiny", "my-lora"]


@each_dialect
async def test_load_in_the_background(sim: SimOptions, tmp_path: Path) -> None:
    """202 with what was asked and a job, which says how it went."""
    async with beside(sim, tmp_path) as side:
        body = load_of(side, "my-lora", async_download=True)
        answer = await side.post("/v1/load_lora_adapter", body)
        assert answer.status_code == 202
        identity = answer.json().pop("job_id")
        assert answer.json() == {
            "status": "started",
            "message": "LoRA adapter download and load started in background",
            "lora_name": "my-lora",
            "source": body["source"],
            "output_dir": body["output_dir"],
            "job_id": identity,
        }
        job = await side.job(identity)
        assert (job["status"], job["lora_name"], job["error"]) == ("completed", "my-lora", None)
        assert job["progress"]["done_bytes"] == job["progress"]["total_bytes"] > 0
        assert await side.loaded() == {"my-lora": side.path("my-lora")}
        assert [one["id"] for one in (await side.get("/v1/jobs")).json()["data"]] == [identity]


@each_dialect
async def test_unload(sim: SimOptions, tmp_path: Path) -> None:
    """The engine's answer; the files stay. Once more: the engine's refusal with its status."""
    async with beside(sim, tmp_path) as side:
        await side.post("/v1/load_lora_adapter", load_of(side, "my-lora"))
        answer = await side.post("/v1/unload_lora_adapter", {"lora_name": "my-lora"})
        assert answer.status_code == 200
        assert await side.loaded() == {}
        assert "adapter_config.json" in names(tmp_path / "out/my-lora")
        again = await side.post("/v1/unload_lora_adapter", {"lora_name": "my-lora"})
        assert again.status_code == (404 if sim.dialect == "vllm" else 400)
        assert again.json()["detail"].startswith(f"HTTP {again.status_code}: {{")


async def test_download_a_model(tmp_path: Path) -> None:
    """Its answers to the letter, at once and in the background."""
    async with beside(QUICK, tmp_path) as side:
        body = {
            "source": side.adapter("m"),
            "output_dir": side.path("m"),
            "config": {"hf_token": "t"},
            "max_workers": 8,
        }
        answer = await side.post("/v1/download_model", body)
        assert answer.json() == {
            "status": "completed",
            "message": "Model download completed successfully",
            "source": body["source"],
            "output_dir": body["output_dir"],
        }
        later = await side.post("/v1/download_model", body | {"output_dir": side.path("n"), "async_download": True})
        assert later.status_code == 202
        assert later.json()["message"] == "Model download started in background"
        assert (await side.job(later.json()["job_id"]))["status"] == "completed"
        assert "adapter_config.json" in names(tmp_path / "out/n")


@pytest.mark.parametrize("config", [{}, None, "", '{"hf_token": "x"}', {"access_key": "a", "secret_key": "b"}])
async def test_config_is_an_object(config: Any, tmp_path: Path) -> None:
    """As the document says; the text of one, which was all that worked, works too."""
    async with beside(QUICK, tmp_path) as side:
        assert (await side.post("/v1/load_lora_adapter", load_of(side, "a", config=config))).status_code == 200


MISTAKES: list[tuple[str, Any, str]] = [
    ("load_lora_adapter", {}, "Missing required parameter: lora_name"),
    ("load_lora_adapter", {"lora_name": "a"}, "Missing required parameter: source or output_dir"),
    ("load_lora_adapter", {"lora_name": "../a", "source": "org/x"}, "lora_name must be"),
    ("load_lora_adapter", {"lora_name": 1, "source": "org/x"}, "lora_name must be text"),
    ("load_lora_adapter", {"lora_name": "a", "source": "nonsense"}, "nonsense"),
    ("load_lora_adapter", {"lora_name": "a", "source": "org/x", "output_dir": "/etc/x"}, "not below"),
    ("load_lora_adapter", {"lora_name": "a", "source": "org/x", "output_dir": "out"}, "absolute path"),
    ("load_lora_adapter", {"lora_name": "a", "source": "/etc"}, "not below"),
    ("load_lora_adapter", {"lora_name": "a", "source": "pvc://etc"}, "not below"),
    ("load_lora_adapter", {"lora_name": "a", "source": "file:///etc/ssl"}, "not below"),
    ("load_lora_adapter", {"lora_name": "a", "source": "org/x", "config": "{"}, "config must be an object"),
    ("load_lora_adapter", {"lora_name": "a", "source": "org/x", "config": {"nope": 1}}, "unknown key"),
    ("load_lora_adapter", {"lora_name": "a", "source": "org/x", "max_workers": 0}, "max_workers must be"),
    ("load_lora_adapter", {"lora_name": "a", "source": "org/x", "async_download": "yes"}, "async_download must be"),
    ("unload_lora_adapter", {}, "Missing required parameter: lora_name"),
    ("download_model", {"output_dir": "/x"}, "Missing required parameter: source"),
    ("download_model", {"source": "org/x"}, "Missing required parameter: output_dir"),
    ("download_model", [], "not a JSON object"),
]


@pytest.mark.parametrize(("path", "body", "reason"), MISTAKES)
async def test_mistakes_are_told_before_anything_is_done(path: str, body: Any, reason: str, tmp_path: Path) -> None:
    """400 with the reason; the engine is not bothered, nothing is written."""
    async with running(options_for("http://127.0.0.1:9", "vllm", tmp_path)) as client:
        answer = await client.post(f"/v1/{path}", json=body)
        assert (answer.status_code, reason in answer.json()["detail"]) == (400, True), answer.text
        assert (await client.get("/v1/jobs")).json()["data"] == []
    assert names(tmp_path) == []


async def test_a_body_that_is_none(tmp_path: Path) -> None:
    """Broken, absent, too large: 400, never 500."""
    async with running(options_for("http://127.0.0.1:9", "vllm", tmp_path)) as client:
        for content in (b"{", b"", b"[" * 100_000, b'{"a": "' + b"x" * (1 << 20) + b'"}'):
            answer = await client.post("/v1/load_lora_adapter", content=content)
            assert answer.status_code == 400
            assert "body" in answer.json()["detail"]
        assert (await client.get("/nowhere")).json()["detail"].startswith("GET /nowhere")


async def test_a_symlink_does_not_lead_out(tmp_path: Path) -> None:
    """Not as the target, nor above it, nor as the source."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.mkdir()
    (root / "link").symlink_to(secret)
    (root / "round").symlink_to(root / "round")
    async with running(options_for("http://127.0.0.1:9", "vllm", root)) as client:
        for body in (
            {"source": "org/x", "output_dir": str(root / "link")},
            {"source": "org/x", "output_dir": str(root / "link/below")},
            {"source": "org/x", "output_dir": str(root / "round/x")},
            {"source": "org/x", "output_dir": str(root)},
            {"source": str(root / "link"), "output_dir": str(root / "x")},
        ):
            answer = await client.post("/v1/download_model", json=body)
            assert answer.status_code == 400, body
    assert names(secret) == []


@each_dialect
async def test_loading_twice_is_loading_once(sim: SimOptions, tmp_path: Path) -> None:
    """At the same time it is one job and one call to the engine; afterwards it is found loaded."""
    async with beside(sim, tmp_path) as side:
        await side.sim.fault(slow_load={"seconds": 0.1, "times": 1})
        body = load_of(side, "a")
        answers = await asyncio.gather(*(side.post("/v1/load_lora_adapter", body) for _ in range(5)))
        assert {one.status_code for one in answers} == {200}
        assert len((await side.get("/v1/jobs")).json()["data"]) == 1
        assert (await side.post("/v1/load_lora_adapter", body)).status_code == 200
        assert await side.loaded() == {"a": side.path("a")}


async def test_another_load_of_the_same_name_waits_its_turn(tmp_path: Path) -> None:
    """409 that names the job, for as long as it is at work; then the engine's own refusal."""
    async with beside(QUICK, tmp_path) as side:
        await side.sim.fault(slow_load={"seconds": 0.3, "times": 1})
        first = await side.post("/v1/load_lora_adapter", load_of(side, "a", async_download=True))
        other = load_of(side, "a", output_dir=side.path("elsewhere"))
        refused = await side.post("/v1/load_lora_adapter", other)
        assert refused.status_code == 409
        assert first.json()["job_id"] in refused.json()["detail"]
        assert (await side.post("/v1/unload_lora_adapter", {"lora_name": "a"})).status_code == 409
        await side.job(first.json()["job_id"])
        loaded = await side.post("/v1/load_lora_adapter", other)
        assert (loaded.status_code, "already been loaded" in loaded.json()["detail"]) == (400, True)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"r": 64}, "rank 64 is above the engine's max_lora_rank 16"),
    ({"base_model_name_or_path": "org/other"}, "made for 'org/other'"),
    ({"peft_type": "IA3"}, "IA3"),
]


@pytest.mark.parametrize(("config", "reason"), UNFIT)
async def test_an_adapter_that_does_not_fit_never_reaches_the_engine(
    config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Its own description says so."""
    async with beside(QUICK, tmp_path, max_lora_rank=16) as side:
        await side.sim.fault(fail_load={"status": 500})
        answer = await side.post("/v1/load_lora_adapter", load_of(side, "a", source=side.adapter("x", **config)))
        assert (answer.status_code, reason in answer.json()["detail"]) == (400, True)
        assert "fail_load" in (await side.sim.get("/sim/faults")).json()["faults"]


@each_dialect
async def test_the_engines_errors_keep_their_status(sim: SimOptions, tmp_path: Path) -> None:
    """And their body; a rank that only the engine knows to be too high among them."""
    async with beside(sim, tmp_path) as side:
        await side.sim.fault(fail_load={"status": 503, "times": 1, "body": "overloaded"})
        answer = await side.post("/v1/load_lora_adapter", load_of(side, "a"))
        assert (answer.status_code, answer.json()) == (503, {"detail": "HTTP 503: overloaded"})
        ranked = await side.post("/v1/load_lora_adapter", load_of(side, "b", source=side.adapter("high", r=64)))
        assert ranked.status_code == (500 if sim.dialect == "vllm" else 400)
        assert "rank 64" in ranked.json()["detail"]


async def test_an_engine_that_is_down_or_late(tmp_path: Path) -> None:
    """502 and 504, each with a word about it."""
    async with beside(QUICK, tmp_path, environ={"REQUEST_TIMEOUT": "0.1"}) as side:
        await side.sim.fault(slow_load={"seconds": 60, "times": 1})
        late = await side.post("/v1/load_lora_adapter", load_of(side, "a"))
        assert (late.status_code, "no answer within 0.1 s" in late.json()["detail"]) == (504, True)
    async with running(options_for("http://127.0.0.1:9", "vllm", tmp_path)) as client:
        for path in ("/v1/unload_lora_adapter",):
            down = await client.post(path, json={"lora_name": "a"})
            assert down.status_code == 502
            assert down.json()["detail"]
        for path in ("/v1/models", "/v1/lora_adapters", "/metrics"):
            answer = await client.get(path)
            assert (answer.status_code, bool(answer.json()["detail"])) == (502, True)


@each_dialect
async def test_the_engines_key(sim: SimOptions, tmp_path: Path) -> None:
    """From the environment, or from whoever asks; without one, the engine's 401."""
    keyed = replace(sim, api_keys=("sekret",))
    async with beside(keyed, tmp_path) as side:
        assert (await side.get("/v1/models")).status_code == 401
        assert (await side.post("/v1/load_lora_adapter", load_of(side, "a"))).status_code == 401
        key = {"authorization": "Bearer sekret"}
        assert (await side.post("/v1/load_lora_adapter", load_of(side, "a"), headers=key)).status_code == 200
        assert len((await side.get("/v1/lora_adapters", headers=key)).json()["data"]) == 1
    async with beside(keyed, tmp_path, environ={"ENGINE_API_KEY": "sekret"}) as side:
        assert (await side.post("/v1/load_lora_adapter", load_of(side, "b"))).status_code == 200


async def test_secrets_are_nowhere_to_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an answer, a job or the log, failed or not."""
    caplog.set_level("DEBUG")
    async with beside(QUICK, tmp_path, Settings(hf_token="hf_SECRET")) as side:
        body = load_of(
            side,
            "a",
            source="http://127.0.0.1:9/x?signature=SECRET",
            config={"headers": {"x-key": "SECRET"}, "hf_token": "SECRET"},
            async_download=True,
        )
        answer = await side.post("/v1/load_lora_adapter", body, headers={"authorization": "Bearer SECRET"})
        job = await side.job(answer.json()["job_id"])
        everything = answer.text + json.dumps(job) + (await side.get("/v1/jobs")).text + caplog.text
    assert job["status"] == "failed"
    assert "SECRET" not in everything


async def test_a_job_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Neither files nor an adapter; who waited for it is told; what has ended stays as it was."""

    async def ignore() -> None: ...

    async with beside(QUICK, tmp_path) as side:
        (tmp_path / "out").mkdir()
        async with only_writer(tmp_path / "out" / ".a.lock", ignore):  # so it must wait
            body = load_of(side, "a")
            waiting = asyncio.create_task(side.post("/v1/load_lora_adapter", body))
            await side.until_jobs(1)  # else it might begin another one later
            identity = (await side.post("/v1/load_lora_adapter", body | {"async_download": True})).json()["job_id"]
            assert (await side.get(f"/v1/jobs/{identity}")).json()["status"] == "running"
            cancelled = await side.client.delete(f"/v1/jobs/{identity}")
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
            told = await waiting
        assert (told.status_code, "cancelled" in told.json()["detail"]) == (409, True)
        assert (await side.client.delete(f"/v1/jobs/{identity}")).json()["status"] == "cancelled"
        assert (await side.client.delete("/v1/jobs/nope")).status_code == 404
        assert await side.loaded() == {}
        assert names(tmp_path / "out") == []
        again = await side.post("/v1/load_lora_adapter", body)
        assert again.status_code == 200


def tarred(folder: Path) -> bytes:
    """As an archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return made.getvalue()


async def test_progress_in_bytes_and_a_cancelled_transfer(tmp_path: Path) -> None:
    """Of a real one, that stands half way; what it left behind is nothing, and the next one is whole."""
    async with web() as site, beside(QUICK, tmp_path) as side:
        big = Path(side.adapter("big"))
        (big / "more.bin").write_bytes(bytes(8 << 20))
        page = site.pages["/big.tar"] = Page(tarred(big), hold=asyncio.Event())
        body = load_of(side, "a", source=site.url("/big.tar?sig=SECRET"), async_download=True)
        answer = await side.post("/v1/load_lora_adapter", body)
        assert answer.json()["source"] == site.url("/big.tar")
        identity = answer.json()["job_id"]
        await page.held.wait()
        for _ in range(1000):
            progress = (await side.get(f"/v1/jobs/{identity}")).json()["progress"]
            if progress["done_bytes"]:
                break
            await asyncio.sleep(0.005)
        assert 0 < progress["done_bytes"] <= len(page.body) // 2
        assert progress["total_bytes"] == len(page.body)
        assert (await side.client.delete(f"/v1/jobs/{identity}")).json()["status"] == "cancelled"
        assert names(tmp_path / "out") == []
        assert page.hold is not None
        page.hold.set()
        done = await side.post("/v1/load_lora_adapter", body | {"async_download": False})
        assert done.status_code == 200, done.text
        assert await side.loaded() == {"a": side.path("a")}


async def test_a_load_that_has_reached_the_engine_is_not_called_off(tmp_path: Path) -> None:
    """It would be loaded all the same."""
    async with beside(QUICK, tmp_path) as side:
        await side.sim.fault(slow_load={"seconds": 0.2, "times": 1})
        identity = (await side.post("/v1/load_lora_adapter", load_of(side, "a", async_download=True))).json()["job_id"]
        await side.until_phase(identity, "loading")
        assert (await side.client.delete(f"/v1/jobs/{identity}")).status_code == 409
        assert (await side.job(identity))["status"] == "completed"


async def test_the_end_of_the_sidecar_ends_its_jobs(tmp_path: Path) -> None:
    """Nothing half is left, and nobody waits for ever."""

    async def ignore() -> None: ...

    (tmp_path / "out").mkdir()
    async with only_writer(tmp_path / "out" / ".a.lock", ignore), beside(QUICK, tmp_path) as side:
        await side.post("/v1/load_lora_adapter", load_of(side, "a", async_download=True))
        waiting = asyncio.create_task(side.post("/v1/load_lora_adapter", load_of(side, "a")))
        await asyncio.sleep(0)
        # Here the sidecar ends, and with it whoever waits.
    with contextlib.suppress(httpx2.HTTPError):
        assert (await waiting).status_code == 409
    assert names(tmp_path / "out") == []


async def test_a_download_with_a_folder_for_each_revision(tmp_path: Path) -> None:
    """Below the one that is named; both answers tell it."""
    async with beside(QUICK, tmp_path) as side:
        body = {"source": side.adapter("a"), "output_dir": side.path("a"), "keyed": True}
        first = (await side.post("/v1/download_model", body)).json()["output_dir"]
        started = (await side.post("/v1/download_model", body | {"async_download": True})).json()
        assert (await side.job(started["job_id"]))["result"]["path"] == first
        assert Path(first).parent == Path(side.path("a")) and names(Path(first)) != []
