"""The sidecar beside a real vLLM: an adapter from its source into the engine, used, and out again; and its metrics."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics.names import STANDARDS
from tests.ports import free_port
from tests.real.conftest import FAST, LORA, ON_CPU, VENV, until

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NOT_TOLD = {"lora_slots", "lora_slots_used", "generation_throughput", "cache_hit_rate"}


@dataclass
class Side:
    engine: httpx2.Client
    sidecar: httpx2.Client
    folder: Path

    def text(self, model: str) -> str:
        body = {"model": model, "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0}
        answer = self.engine.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["text"])

    def load(self, name: str, source: Path | str, **more: Any) -> httpx2.Response:
        body = {"lora_name": name, "source": str(source), "output_dir": str(self.folder / "out" / name), **more}
        return self.sidecar.post("/v1/load_lora_adapter", json=body)

    def listed(self) -> list[str]:
        return [one["lora_name"] for one in self.sidecar.get("/v1/lora_adapters").json()["data"]]


@contextlib.contextmanager
def program(*command: str, port: int, **environ: str) -> Iterator[httpx2.Client]:
    """Ready when its /health is; killed at the end."""
    process = subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def ready() -> bool:
        assert process.poll() is None, command
        try:
            return client.get("/health").status_code == 200
        except httpx2.HTTPError:
            return False

    try:
        until(ready, 300)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    if not (VENV / "installed").exists():
        pytest.fail("there is no vLLM here: run scripts/test-vllm")
    folder, at, beside = tmp_path_factory.mktemp("side"), free_port(), free_port()
    flags = (
        f"--served-model-name fast --host 127.0.0.1 --port {at} --dtype float32 --enforce-eager --max-model-len 1024"
    )
    vllm = [str(VENV / "bin/vllm"), "serve", FAST, *flags.split(), "--enable-lora", "--max-lora-rank", "8"]
    runtime = [sys.executable, "-m", "runtime", "-E", "vllm", "-H", "127.0.0.1", "-P", str(beside)]
    runtime += ["-B", f"http://127.0.0.1:{at}", "--allow-root", str(folder), "--allow-root", str(VENV)]
    allowed = ON_CPU | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    with program(*vllm, port=at, **allowed) as engine, program(*runtime, port=beside) as sidecar:
        yield Side(engine, sidecar, folder)


def changed(side: Side, name: str, **config: Any) -> Path:
    """The adapter with another description."""
    folder = side.folder / name
    shutil.copytree(LORA, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


def test_load_list_use_unload(side: Side) -> None:
    """Base and adapter say different things; loaded twice is loaded once; gone, it is unknown."""
    base = side.text("fast")
    for _ in range(2):
        answer = side.load("lora", LORA)
        assert answer.status_code == 200, answer.text
        assert side.listed() == ["lora"]
    assert side.text("lora") != base == side.text("fast")
    assert side.sidecar.post("/v1/unload_lora_adapter", json={"lora_name": "lora"}).json() == {
        "message": "Success: LoRA adapter 'lora' removed successfully."
    }
    assert side.listed() == []
    again = side.sidecar.post("/v1/unload_lora_adapter", json={"lora_name": "lora"})
    assert (again.status_code, "cannot be found" in again.json()["detail"]) == (404, True)


def test_in_the_background(side: Side) -> None:
    """As a job."""
    identity = side.load("later", LORA, async_download=True).json()["job_id"]
    until(lambda: side.sidecar.get(f"/v1/jobs/{identity}").json()["status"] == "completed", 30)
    assert side.text("later") != side.text("fast")
    assert side.sidecar.post("/v1/lora_adapter/unload", json={"lora_name": "later"}).status_code == 200


def test_delegated_as_aibrix_does(side: Side) -> None:
    """Another URL replaces it in place."""
    first = side.sidecar.post("/v1/lora_adapter/load", json={"lora_name": "a", "artifact_url": LORA})
    assert first.status_code == 200, first.text
    other = changed(side, "other", lora_alpha=64)
    second = side.sidecar.post("/v1/lora_adapter/load", json={"lora_name": "a", "artifact_url": str(other)})
    assert second.status_code == 200, second.text
    assert second.json()["local_path"] != first.json()["local_path"]
    assert not Path(first.json()["local_path"]).exists()
    side.text("a")
    assert side.sidecar.post("/v1/lora_adapter/unload", json={"lora_name": "a"}).status_code == 200
    assert not Path(second.json()["local_path"]).exists()


def test_what_does_not_fit(side: Side) -> None:
    """A base that is another is found before the engine is asked; a rank too high by the engine."""
    wrong = side.load("wrong", changed(side, "wrong", base_model_name_or_path="org/other"))
    assert (wrong.status_code, "org/other" in wrong.json()["detail"]) == (400, True)
    ranked = side.load("ranked", changed(side, "ranked", r=64))
    assert ranked.status_code >= 400
    assert "rank" in ranked.json()["detail"]
    assert side.listed() == []


def test_the_whole_standard_set(side: Side) -> None:
    """Each metric that vLLM tells, its counters with their values."""
    side.load("seen", LORA)
    side.text("seen")
    families = {one.name: one for one in text_string_to_metric_families(side.sidecar.get("/metrics").text)}
    assert {f"torpor:{name}" for name in STANDARDS.keys() - NOT_TOLD} <= families.keys()
    for name in ("prompt_tokens", "generation_tokens"):
        values = [sum(one.value for one in families[f"{prefix}:{name}"].samples) for prefix in ("vllm", "torpor")]
        assert values[0] == values[1] > 0
    assert len(families["torpor:lora_requests_info"].samples) == 1
