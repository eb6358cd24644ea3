"""A fleet of tiny servers in real tmux sessions on a private socket."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console

from controller.config.load import load
from controller.config.model import Config
from controller.launch.environment import MARKER
from controller.launch.operations import Operations
from controller.launch.tmux import Pane, Tmux
from controller.launch.unit import owner_of
from tests.ports import free_port

SERVER = Path(__file__).with_name("tiny_server.py")
PYTHON = f"{sys.executable} -I -S"


def server(name: str, *options: str, **keys: Any) -> dict[str, Any]:
    """An instance that is the tiny server, called by a path relative to the YAML's folder."""
    command = f"{PYTHON} tiny_server.py {{port}} {{model}} {' '.join(options)}"
    return {"model": name, "engine": "openai", "port": free_port(), "command": command, **keys}


def shell(name: str, script: str, **keys: Any) -> dict[str, Any]:
    return {"model": name, "engine": "openai", "port": free_port(), "command": [["sh", "-c", script]], **keys}


@dataclass
class Workplace:
    """One YAML file and what is done with it, in this process."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    file_name: str = "fleet.yaml"
    output: str = ""

    @property
    def file(self) -> Path:
        return self.folder / self.file_name

    def write(self, *instances: Mapping[str, Any], **sections: Any) -> None:
        launch = {"ready_timeout_seconds": 10, "stop_timeout_seconds": 3, **sections.pop("launch", {})}
        router = {"router_port": free_port(), **sections.pop("router", {})}  # 8080 may be somebody's own
        document = {
            "launch": launch,
            "router": router,
            **sections,
            "instances": [dict(instance) for instance in instances],
        }
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    def config(self) -> Config:
        return load(self.file, self.environment)

    def operations(self) -> Operations:
        self._screen = io.StringIO()
        console = Console(file=self._screen, width=400)
        config = self.config()
        frontend = f"{PYTHON} {SERVER} {config.router.router_port} -".split()
        return Operations(config, console, self.environment, frontend)

    def up(self, *only: str, wait: bool = True) -> int:
        return self._done(asyncio.run(self.operations().up(only, wait=wait)))

    def stop(self, *names: str) -> int:
        return self._done(asyncio.run(self.operations().stop(names)))

    def restart(self, *names: str) -> int:
        return self._done(asyncio.run(self.operations().restart(names, wait=True)))

    def status(self) -> int:
        return self._done(asyncio.run(self.operations().status()))

    def kill_all(self) -> int:
        return self._done(asyncio.run(self.operations().kill_all()))

    def dry_run(self, *only: str) -> int:
        return self._done(self.operations().dry_run(only))

    def check(self) -> int:
        return self._done(self.operations().check())

    def panes(self) -> dict[str, Pane]:
        """Our panes by the unit's name; tmux has looked after its dead children, of which it sometimes misses one."""
        Tmux().reap()
        return {pane.unit: pane for pane in Tmux().panes() if pane.config == owner_of(self.file)}

    def program(self, name: str) -> psutil.Process:
        """What runs below the pane's program, which may have been told only just now what that is."""
        pane, deadline = psutil.Process(self.panes()[name].pid), time.monotonic() + 10
        while not (below := pane.children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        [process] = below
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{self.file.stem}.logs" / f"{name}.log").read_text()

    def told(self, name: str) -> Any:
        """What the tiny server wrote down of itself when it started."""
        return json.loads((self.folder / f"{name.replace('/', '_')}.json").read_text())

    def _done(self, code: int) -> int:
        self.output = self._screen.getvalue()
        return code


def tmux(*words: str) -> str:
    """The user's own tmux command."""
    done = subprocess.run(["tmux", "-L", "default", *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout


def processes_of(folder: Path) -> list[psutil.Process]:
    """All that was launched from YAML files in ``folder`` and still runs."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(MARKER, "").startswith(str(folder.resolve()))
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    sockets = Path(tempfile.mkdtemp(prefix="tx", dir="/tmp"))  # a socket's path must be short
    monkeypatch.setenv("TMUX_TMPDIR", str(sockets))
    monkeypatch.delenv("TMUX", raising=False)
    shutil.copy(SERVER, tmp_path)
    program = str(shutil.which("tmux"))  # a test may take it from PATH
    yield Workplace(tmp_path)
    subprocess.run([program, "-L", "default", "kill-server"], capture_output=True, check=False, timeout=10)
    for process in processes_of(tmp_path):
        with contextlib.suppress(psutil.NoSuchProcess):  # it went by itself just now
            process.kill()
    shutil.rmtree(sockets, ignore_errors=True)


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program as a user without a terminal runs it."""
    return subprocess.run(
        list(words),
        cwd=folder,
        env=dict(os.environ if environment is None else environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
