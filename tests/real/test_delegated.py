"""``sidecar: true`` beside a real vLLM: the gateway has the sidecar fetch, load, replace and unload."""

from __future__ import annotations

import contextlib
import os
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from openai import OpenAI

from controller.adapters.spec import ENABLED_LABEL
from tests.real.conftest import FAST, LORA, Fleet, engine, launched, until
from tests.real.test_adapters import apply, loaded, other_lora, phase, text

__all__ = ["other_lora"]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SIDECAR = "fast-runtime"


def write(file: Path, ports: dict[str, int]) -> None:
    beside = {"sidecar": True, "sidecar_port": ports[SIDECAR], "labels": {ENABLED_LABEL: "true"}}
    document = {
        "router": {"enable_router": True, "router_port": ports["frontend"]},
        "sleep_manager": {"min_sleep_duration": 0},
        "launch": {"ready_timeout_seconds": 300},
        "instances": [engine("fast", ports["fast"], FAST, **beside)],
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with launched(tmp_path_factory.mktemp("delegated"), ("fast", SIDECAR, "frontend"), write) as fleet:
        yield fleet


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""


@contextlib.contextmanager
def website(folder: Path) -> Iterator[str]:
    """What is in ``folder``, by URL; the time of a file is its revision."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def publish(file: Path, lora: str, at: int) -> None:
    with tarfile.open(file, "w:gz") as archive:
        archive.add(lora, "lora")
    os.utime(file, (at, at))


def jobs(fleet: Fleet) -> list[tuple[str, str]]:
    """What the sidecar has done."""
    data = fleet.http.get(f"{fleet.url(SIDECAR)}/v1/jobs").json()["data"]
    return [(job["kind"], job["status"]) for job in data]


def test_fetched_loaded_replaced_given_back_and_taken_away(
    fleet: Fleet, other_lora: str, client: OpenAI, tmp_path: Path
) -> None:
    """All of it by the sidecar, and each step in the engine's own list."""
    site, kept = tmp_path / "site", fleet.file.with_name("fleet.adapters") / "sql"
    site.mkdir()
    publish(site / "lora.tar.gz", LORA, 1_000_000_000)
    with website(site) as url:
        apply(fleet, f"{url}/lora.tar.gz")
        until(lambda: phase(fleet) == "Running", 60)
        path = loaded(fleet)["sql"]
        assert Path(path).parent == kept
        assert jobs(fleet) == [("download_model", "completed"), ("load_lora_adapter", "completed")]
        base, first = text(client, "fast"), text(client, "sql")
        assert base != first

        publish(site / "lora.tar.gz", other_lora, 1_000_000_010)
        apply(fleet, f"{url}/lora.tar.gz")
        until(lambda: loaded(fleet)["sql"] != path, 60)
        until(lambda: not Path(path).exists(), 60)
        second = text(client, "sql")
        assert len({base, first, second}) == 3

    assert fleet.sleep("fast").status_code == 200
    assert text(client, "sql") == second

    psutil.Process(fleet.pids()["fast"]).kill()
    until(lambda: fleet.state("fast") != "ready", 30)
    until(lambda: fleet.state("fast") == "ready", 300)
    assert text(client, "sql") == second
    assert text(client, "fast") == base
    assert all(status == "completed" for _, status in jobs(fleet)[-1:])

    assert fleet.launch("--delete", "adapter", "sql").returncode == 0
    until(lambda: phase(fleet) == "gone", 60)
    assert loaded(fleet) == {} and not kept.exists()
    assert jobs(fleet)[-1] == ("unload_lora_adapter", "completed")
    log = fleet.log(SIDECAR)
    assert "download_model" in log and "completed" in log
