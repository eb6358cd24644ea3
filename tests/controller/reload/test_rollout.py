"""``--plan`` and ``--reload``, with real tmux, the real gateway and simulated engines, under load."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from rich.console import Console

from controller.launch.plan import Seen
from controller.launch.tmux import Pane
from controller.launch.unit import ROUTER, SIDECAR
from controller.reload.operations import Changes
from controller.reload.rollout import steps_of
from tests.controller.launch.conftest import Workplace
from tests.controller.launch.test_plan import OURS, UNIT, record
from tests.ports import free_port

QUICK = ["--ttft", "0", "--tokens-per-second", "500", "--load-seconds", "0"]


def sim(model: str, name: str, port: int, **keys: Any) -> dict[str, Any]:
    return {"model": model, "name": name, "port": port, "engine": "sim", "engine_args": QUICK, **keys}


class Place:
    def __init__(self, workplace: Workplace) -> None:
        self.workplace = workplace
        self.router = {"enable_router": True, "router_port": free_port()}
        self.url = f"http://127.0.0.1:{self.router['router_port']}"

    def write(self, *instances: dict[str, Any], sections: dict[str, Any] | None = None, **router: Any) -> None:
        self.workplace.write(*instances, router={**self.router, **router}, **(sections or {}))

    def started_at(self) -> float:
        found: float = httpx2.get(f"{self.url}/get_server_info", trust_env=False).json()["started_at"]
        return found

    def do(self, what: str, **keys: Any) -> tuple[int, str]:
        screen = io.StringIO()
        changes = Changes(self.workplace.config(), Console(file=screen, width=400), self.workplace.environment)
        code: int = asyncio.run(getattr(changes, what)(**keys))
        return code, screen.getvalue()

    def pids(self) -> dict[str, int]:
        return {name: pane.pid for name, pane in self.workplace.panes().items()}

    def ask(self, client: httpx2.Client, model: str, **fields: Any) -> httpx2.Response:
        body = {"model": model, "prompt": "Once", "max_tokens": 20} | fields
        return client.post(f"{self.url}/v1/completions", json=body, timeout=30)

    @contextmanager
    def load(self, *models: str) -> Iterator[list[str]]:
        """Clients that ask all the time; what failed."""
        failed: list[str] = []
        over = threading.Event()

        def client(model: str, stream: bool) -> None:
            with httpx2.Client(trust_env=False) as client:
                while not over.is_set():
                    try:
                        answer = self.ask(client, model, stream=stream)
                        if answer.status_code != 200 or (stream and "[DONE]" not in answer.text):
                            failed.append(f"{model}: {answer.status_code} {answer.text}")
                    except httpx2.HTTPError as lost:
                        failed.append(f"{model}: {lost!r}")

        threads = [threading.Thread(target=client, args=(model, stream)) for model in models for stream in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            yield failed
        finally:
            over.set()
            for thread in threads:
                thread.join()


def test_what_is_done_about_each_process() -> None:
    """Started, stopped, or left alone; whatever of the YAML a frontend was started with is no reason."""
    stray = Pane("%9", "kvcached-old", 9, dead=False, unit="old", config="/c.yaml")
    changed = record()
    changed.argv[:] = ["serve", "--port", "2"]
    assert steps_of([UNIT], {"a": Seen()}, []).lines() == ["a: start"]
    assert steps_of([UNIT], {"a": Seen(pane=OURS, healthy=True, record=record())}, [stray]).lines() == ["old: stop"]
    runs = {"a": Seen(pane=OURS, healthy=True, record=changed)}
    assert steps_of([replace(UNIT, service=ROUTER)], runs, []).lines() == []
    (line,) = steps_of([replace(UNIT, service=SIDECAR)], runs, []).lines()
    assert line.startswith("a: start anew (arguments:")


def test_only_what_must_is_started_anew_and_no_request_fails(workplace: Workplace) -> None:
    """One of two replicas, and a model's only engine; another is stopped, one started; the rest is as it was."""
    place = Place(workplace)
    ports = {name: free_port() for name in "abcde"}
    a, b, c = sim("m", "a", ports["a"]), sim("m", "b", ports["b"]), sim("alone", "c", ports["c"])
    place.write(a, b, c, sim("old", "d", ports["d"]))
    assert place.do("up", only=[], wait=True)[0] == 0
    before = place.pids()
    place.write(
        {**a, "env": {"NEW": "1"}}, {**b, "aliases": ["x"]}, {**c, "env": {"NEW": "1"}}, sim("new", "e", ports["e"])
    )
    code, planned = place.do("plan")
    lines = ["b: aliases: none -> x", "d: stop", "e: start", "a: start anew (variables: NEW)", "c: start anew"]
    assert code == 0
    assert all(line in planned for line in lines), planned
    assert place.pids() == before
    with place.load("m", "alone") as failed:
        code, shown = place.do("reload")
    assert (code, failed) == (0, []), shown
    after = place.pids()
    assert set(after) == {"frontend", "a", "b", "c", "e"}
    assert {name for name in after if after[name] != before.get(name)} == {"a", "c", "e"}
    with httpx2.Client(trust_env=False) as client:
        assert [place.ask(client, name).status_code for name in ("x", "new", "old")] == [200, 200, 404]
    assert "nothing has changed" in place.do("plan")[1]


def three_with_room_for_two(pinned: bool) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Models and sections of the YAML. ``pinned``: two of them."""
    models = [sim(name, name, free_port(), gpus=[0], memory_gib=30) for name in "abc"]
    sections = {
        "gpus": {0: {"memory_gib": 64}},
        "residency": {"min_awake_seconds": 0},
        "sleep_manager": {"drain_timeout_seconds": 1 if pinned else 10, "min_sleep_duration": 0},
        "models": {name: {"pinned": pinned} for name in "ab"},
    }
    return models, sections


@pytest.mark.parametrize("pinned", [False, True])
def test_one_that_sleeps_is_started_anew_where_there_is_room(workplace: Workplace, pinned: bool) -> None:
    """An idle one leaves for it, and it sleeps again; if nobody may leave, its next request is to start it."""
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned)
    models[2]["start"] = "asleep"
    place.write(*models, sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    place.write(*models[:2], {**models[2], "env": {"NEW": "1"}}, sections=sections)
    code, shown = place.do("reload")
    assert code == 0, shown
    with httpx2.Client(trust_env=False) as client:
        found = client.get(f"{place.url}/residency").json()
    assert found["places"]["gpu0"]["free"] >= 0
    states = sorted(one["state"] for one in found["instances"].values())
    if pinned:
        assert "c: there is no room for it now (26 GiB more are needed on gpu0); its next request starts it" in shown
        assert states == ["ready", "ready", "stopped"]
        assert set(place.pids()) == {"frontend", "a", "b"}
    else:
        assert "c: asleep" in shown
        assert (found["instances"]["c"]["state"], states) == ("asleep", ["asleep", "asleep", "ready"])
    assert "nothing has changed" in place.do("plan")[1]


@pytest.mark.parametrize("pinned", [False, True])
def test_a_new_one_is_started_where_there_is_room(workplace: Workplace, pinned: bool) -> None:
    place = Place(workplace)
    models, sections = three_with_room_for_two(pinned)
    place.write(*models[:2], sections=sections)
    assert place.do("up", only=[], wait=True)[0] == 0
    place.write(*models, sections=sections)
    code, shown = place.do("reload")
    assert code == 0, shown
    assert ("c: there is no room for it now" in shown) == pinned
    assert ("c" in place.pids()) != pinned
    with httpx2.Client(trust_env=False) as client:
        found = client.get(f"{place.url}/residency").json()
    assert found["places"]["gpu0"]["free"] >= 0
    assert found["instances"]["c"]["state"] == ("stopped" if pinned else "ready")


def test_the_gateway_is_started_anew_and_no_request_fails(workplace: Workplace, tmp_path: Path) -> None:
    """``--restart frontend``: its session and its engines stay; a YAML that it cannot start with changes nothing."""
    place = Place(workplace)
    only = sim("m", "a", free_port())
    place.write(only)
    assert place.do("up", only=[], wait=True)[0] == 0
    before, started = place.pids(), place.started_at()
    with place.load("m") as failed:
        code, shown = place.do("restart", names=["frontend"], wait=True)
    assert (code, failed) == (0, []), shown
    assert place.pids() == before
    assert place.started_at() > started
    place.write(only, sections={"adapter_store": {"folder": str(tmp_path)}})
    assert f"-> {tmp_path} (when" in place.do("plan")[1]
    started = place.started_at()
    assert place.do("reload")[0] == 0
    assert place.pids() == before
    assert place.started_at() > started
    assert "nothing has changed" in place.do("plan")[1]


def test_another_key_and_another_port(workplace: Workplace) -> None:
    """A gateway whose key has changed is told by a signal; one whose port has changed is started anew."""
    workplace.environment.update(OLD="old-key", NEW="new-key")
    place = Place(workplace)
    only = {"model": "m", "url": f"http://127.0.0.1:{free_port()}"}
    place.write(only, api_key_env="OLD")
    assert place.do("up", only=[], wait=True)[0] == 0
    pid = place.pids()["frontend"]
    place.write(only, api_key_env="NEW")
    assert "told by a signal" in place.do("reload")[1]
    assert place.pids()["frontend"] == pid
    info = f"{place.url}/get_server_info"
    assert [httpx2.get(info, headers={"x-api-key": key}).status_code for key in ("old-key", "new-key")] == [401, 200]
    place.router["router_port"] = free_port()
    place.write(only, api_key_env="NEW")
    assert "started anew" in place.do("reload")[1]
    url = f"http://127.0.0.1:{place.router['router_port']}/health"
    assert httpx2.get(url, trust_env=False).status_code == 200
    assert os.getpid() != place.pids()["frontend"] != pid
