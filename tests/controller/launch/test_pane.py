"""The first program in a pane: what runs below it is told what it is told, and it ends as that ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from controller.launch.handover import Handover
from controller.launch.pane import LINGER_SECONDS
from tests.controller.launch.conftest import Workplace, shell, tmux
from tests.controller.launch.test_launching import until

ON_SIGNALS = """
trap 'echo heard {name}; exit 3' {name}
echo up > up
while :; do sleep 0.02; done
"""


def told_to_run(script: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In no pane: it has ended, or will, when it has run ``script``."""
    with Handover() as handover:
        process = subprocess.Popen(handover.argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        handover.give(("sh", "-c", script), environment, folder, lambda: process.poll() is None)
    return process


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        *((f"kill -{number} $$", -number) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)),
        ("ulimit -c 0; kill -ABRT $$", -signal.SIGABRT),
        ("kill -PIPE $$", -signal.SIGPIPE),  # Python ignores it, and what it starts must not
        ("kill -USR1 $$", -signal.SIGUSR1),  # one that is passed on
    ],
)
def test_it_ends_as_what_it_ran(tmp_path: Path, script: str, code: int) -> None:
    process = told_to_run(f"echo last words; {script}", tmp_path, os.environ)
    said, complaints = process.communicate(timeout=10)
    assert (process.returncode, said, complaints) == (code, b"last words\n", b"")


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    with Handover() as handover:
        process = subprocess.Popen(handover.argv, stderr=subprocess.PIPE)
        handover.give(("/no/such/program",), os.environ, tmp_path, lambda: process.poll() is None)
    assert process.communicate(timeout=10)[1] == b"torpor: cannot run /no/such/program: No such file or directory\n"
    assert process.returncode == 127


@pytest.mark.parametrize("name", ["TERM", "HUP", "USR1", "USR2"])
def test_what_it_is_told_is_passed_on(tmp_path: Path, name: str) -> None:
    process = told_to_run(ON_SIGNALS.format(name=name), tmp_path, os.environ)
    until((tmp_path / "up").exists)
    process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.communicate(timeout=10)[0] == f"heard {name}\n".encode()
    assert process.returncode == 3


def test_what_is_typed_reaches_the_engine_once(workplace: Workplace) -> None:
    """From the terminal itself: an engine that is asked twice leaves at once."""
    script = "trap 'echo >> heard; sleep 0.3; exit $(wc -l < heard)' INT; echo > up; while :; do sleep 0.02; done"
    workplace.write(shell("a", script))
    workplace.up(wait=False)
    until((workplace.folder / "up").exists)
    tmux("send-keys", "-t", "=kvcached-a:", "C-c")
    until(lambda: workplace.panes()["a"].dead)
    assert workplace.panes()["a"].status == "exit status 1"


def test_a_terminal_outlives_its_engine(workplace: Workplace) -> None:
    """What tmux has not yet read when its first program ends is lost, and a busy kernel has not yet passed it on."""
    workplace.write(shell("a", "echo > up; sleep 60"))
    workplace.up(wait=False)
    until((workplace.folder / "up").exists)
    engine, began = workplace.program("a"), time.monotonic()
    engine.kill()
    until(lambda: workplace.panes()["a"].dead)
    assert time.monotonic() - began >= LINGER_SECONDS
    assert workplace.panes()["a"].status == "signal 9"
