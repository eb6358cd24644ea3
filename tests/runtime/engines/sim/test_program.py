"""The engine as a process: it starts fast, dies when the real one dies, and stops when told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest

from tests.runtime.engines.sim.stage import program, sse


def test_port_in_use_is_an_error() -> None:
    """Exit code 1 and a clear word, where vLLM would share the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, "-m", "runtime.engines.sim", "--port", str(listener.getsockname()[1])]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode == 1
    assert "cannot listen on" in ended.stderr


def test_wrong_fault_is_an_error() -> None:
    """Exit code 2 and the known faults."""
    words = [sys.executable, "-m", "runtime.engines.sim", "--fault", '{"nope": true}']
    ended = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode == 2
    assert "unknown fault 'nope'" in ended.stderr


def test_key_comes_from_the_environment() -> None:
    """SIM_API_KEY guards /v1."""
    with program(environ={**os.environ, "SIM_API_KEY": "k"}) as (url, _):
        assert httpx2.get(f"{url}/v1/models").status_code == 401
        assert httpx2.get(f"{url}/v1/models", headers={"authorization": "Bearer k"}).status_code == 200


@pytest.mark.parametrize("deed", ["release", "resume"])
def test_misused_sglang_ends_its_process(deed: str) -> None:
    """Released while busy, or resumed while not released: the process is gone, with the scheduler's last words."""
    words = ["--dialect", "sglang", "--health-seconds", "5"]
    with program(*words) as (url, process):
        with httpx2.Client(base_url=url, timeout=15) as client, pytest.raises(httpx2.HTTPError):
            if deed == "release":
                body = {"prompt": "x", "max_tokens": 500, "stream": True}
                with client.stream("POST", "/v1/completions", json=body) as answer:
                    lines = answer.iter_lines()  # dropped, it would close the stream
                    next(lines)
                    httpx2.post(f"{url}/release_memory_occupation", json={}, timeout=15)
            else:
                client.post("/resume_memory_occupation", json={})
        assert process.wait(15) == 1
        assert process.stderr is not None
        last = process.stderr.read()
    assert ("AssertionError: release_memory_occupation" if deed == "release" else "KeyError: 'kv_cache'") in last


def test_crash_fault_ends_the_process() -> None:
    """Exit code 1, the connection broken."""
    with program() as (url, process):
        with pytest.raises(httpx2.HTTPError):
            httpx2.post(f"{url}/sim/faults", json={"crash": True})
        assert process.wait(15) == 1


def test_stop_breaks_off_what_runs() -> None:
    """SIGTERM: the stream ends in the error event, and the process long before all its tokens were said."""
    with program() as (url, process):
        body = {"prompt": "x", "max_tokens": 5000, "stream": True}
        with httpx2.Client(timeout=15) as client, client.stream("POST", f"{url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            seen = [next(lines)]
            process.send_signal(signal.SIGTERM)
            seen += lines
        events = sse("\n".join(seen))
        process.wait(15)
    assert events[-2][1]["error"]["type"] == "InternalServerError"
    assert events[-1][1] == "[DONE]"
