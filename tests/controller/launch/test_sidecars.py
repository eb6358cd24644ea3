"""Real tmux, real processes: a sidecar beside an engine, in a session of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx2
import pytest

from tests.controller.launch.conftest import Workplace
from tests.controller.launch.test_launching import until
from tests.ports import free_port

KEY = "sk-of-the-engine-only"


@pytest.fixture
def beside(workplace: Workplace) -> Workplace:
    """An engine that wants a key and speaks SGLang's dialect, and its sidecar."""
    workplace.environment |= {"KEY_OF_A": KEY}
    words = "--dialect sglang --load-seconds 0"
    engine = {"model": "org/a", "engine": "sim", "port": free_port(), "args": words, "api_key_env": "KEY_OF_A"}
    workplace.write({**engine, "sidecar": True, "sidecar_port": free_port()})
    return workplace


def test_a_sidecar_comes_and_goes_with_its_engine(beside: Workplace) -> None:
    """It knows the engine's dialect and its key, which is on no command line; it listens on loopback alone."""
    assert beside.up() == 0, beside.output
    panes = beside.panes()
    assert {pane.session for pane in panes.values()} == {"kvcached-a", "kvcached-a-runtime"}
    process = beside.program("a-runtime")
    words = process.cmdline()
    assert words[words.index("--engine") + 1] == "sglang" and KEY not in " ".join(words)
    assert {one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"} == {"127.0.0.1"}
    url = beside.config().instances[0].sidecar
    assert url is not None
    found = httpx2.get(f"{url.url}/v1/lora_adapters", timeout=10, trust_env=False)
    assert (found.status_code, found.json()["data"]) == (200, [])  # the engine has let it in
    assert beside.status() == 0
    assert "a-runtime" in beside.output and "sidecar" in beside.output

    assert beside.stop("a") == 0
    assert not beside.panes() and not process.is_running()


def test_a_sidecar_that_has_died_is_started_again_alone(beside: Workplace) -> None:
    """The engine is left as it is; --restart of the sidecar's name is for it alone, and --kill-all is for both."""
    beside.up()
    before = {name: pane.pid for name, pane in beside.panes().items()}
    os.kill(before["a-runtime"], signal.SIGKILL)
    until(lambda: beside.status() == 1)
    assert beside.up() == 0, beside.output
    after = {name: pane.pid for name, pane in beside.panes().items()}
    assert after["a"] == before["a"] and after["a-runtime"] != before["a-runtime"]
    assert beside.restart("a-runtime") == 0
    assert beside.panes()["a"].pid == before["a"] and beside.panes()["a-runtime"].pid != after["a-runtime"]
    assert beside.kill_all() == 0
    assert not beside.panes()


def test_the_exact_command_of_a_sidecar_can_be_read(beside: Workplace) -> None:
    """Without the key; the sidecar may write to the store of adapters."""
    assert beside.dry_run("a") == 0
    line = next(line for line in beside.output.splitlines() if " -m runtime " in line)
    assert f"--allow-root {beside.folder / 'fleet.adapters'}" in line
    assert KEY not in beside.output
    assert beside.check() == 0
    assert "a-runtime: the sidecar at http://127.0.0.1:" in beside.output
    assert Path(beside.folder / "fleet.logs/a-runtime.log").name in beside.output
