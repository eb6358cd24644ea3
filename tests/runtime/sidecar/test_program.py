"""``python -m runtime`` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.ports import free_port
from tests.runtime.engines.sim.stage import program

KILLS = int(os.environ.get("TORPOR_KILLS", "2"))


@contextlib.contextmanager
def sidecar(*words: str) -> Iterator[tuple[httpx2.Client, subprocess.Popen[str]]]:
    """Ready to be asked."""
    port = free_port()
    command = [sys.executable, "-m", "runtime", "--port", str(port), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0, trust_env=False) as client:
            _until_ready(client, process)
            yield client, process
    finally:
        process.kill()
        process.communicate()


def _until_ready(client: httpx2.Client, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        with contextlib.suppress(httpx2.HTTPError):
            if client.get("/health").status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_whole_program(tmp_path: Path) -> None:
    """Beside a real process: metrics, an adapter there and back, said where it listens, and a clean stop."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "adapter_config.json").write_text('{"r": 8}')
    with (
        program("--enable-lora") as (url, _),
        sidecar("-E", "sim", "-B", url, "--allow-root", str(tmp_path)) as (client, process),
    ):
        assert "torpor:num_requests_running" in client.get("/metrics").text
        body = {"lora_name": "a", "source": str(source), "output_dir": str(tmp_path / "a")}
        assert client.post("/v1/load_lora_adapter", json=body).status_code == 200
        assert [one["lora_name"] for one in client.get("/v1/lora_adapters").json()["data"]] == ["a"]
        assert client.post("/v1/unload_lora_adapter", json={"lora_name": "a"}).status_code == 200
        assert "/v1/load_lora_adapter" in client.get("/").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
    assert "OPEN TO THE NETWORK: 0.0.0.0" in said
    assert "GET /metrics" not in said


def test_killed_at_any_moment_nothing_half_is_loaded(tmp_path: Path) -> None:
    """``TORPOR_KILLS=100`` does it a hundred times. In the end all is there, and nothing else is."""
    dice, source, target = random.Random(), tmp_path / "source", tmp_path / "out" / "a"
    source.mkdir()
    (source / "adapter_config.json").write_text('{"r": 8}')
    files = {f"{number}.bin": os.urandom(1 << 20) for number in range(8)}
    for name, content in files.items():
        (source / name).write_bytes(content)
    body = {"lora_name": "a", "source": str(source), "output_dir": str(target)}
    words = ["-E", "sim", "-H", "127.0.0.1", "--allow-root", str(tmp_path)]
    with program("--enable-lora") as (url, _):
        for _ in range(KILLS):
            with sidecar(*words, "-B", url) as (client, process):
                client.post("/v1/load_lora_adapter", json=body | {"async_download": True})
                time.sleep(dice.random() * 0.1)
                process.kill()
            listed = httpx2.get(f"{url}/v1/models", trust_env=False).json()["data"]
            assert target.exists() or not [card for card in listed if card["parent"]]
            if target.exists():
                assert {name: (target / name).read_bytes() for name in files} == files
        with sidecar(*words, "-B", url) as (client, _):
            assert client.post("/v1/load_lora_adapter", json=body).status_code == 200
            assert client.get("/v1/lora_adapters").json()["data"][0]["path"] == str(target)
    assert [one.name for one in target.parent.iterdir()] == ["a"]


def test_it_does_not_start_with_an_unsupported_engine() -> None:
    """Exit code 2, and the supported ones."""
    done = subprocess.run([sys.executable, "-m", "runtime", "-E", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unsupported engine 'nope'; supported: vllm, sglang, sim" in done.stderr


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """Exit code 1, and no traceback."""
    with program() as (url, _):
        words = ["-E", "vllm", "-H", "127.0.0.1", "-P", url.rpartition(":")[2]]
        command = [sys.executable, "-m", "runtime", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": "/tmp"})
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_fetch_is_a_command_of_it(tmp_path: Path) -> None:
    """``python -m runtime fetch``."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "x.json").write_text(json.dumps({"a": 1}))
    command = [sys.executable, "-m", "runtime", "fetch", str(tmp_path / "source"), str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "made"))
