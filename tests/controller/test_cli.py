"""The command line as a user without a terminal sees it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from controller.cli import main
from tests.controller.launch.conftest import Workplace, processes_of, run, server, shell, tmux
from tests.controller.launch.conftest import workplace as workplace
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = [sys.executable, str(ROOT / "launch.py")]


def test_a_day_without_a_terminal(workplace: Workplace) -> None:
    """Up, up again, status, sessions, all gone: from another folder, with nothing on stdin, asking nothing."""
    workplace.write(server("a"), server("b.c"))
    launch = [*LAUNCH, "--config", str(workplace.file)]
    elsewhere = workplace.folder.parent
    first = run(launch, elsewhere)
    assert (first.returncode, first.stderr) == (0, "")
    second = run(launch, elsewhere)
    assert second.returncode == 0
    assert "a: ready, runs already" in second.stdout
    status = run([*launch, "--status"], elsewhere)
    assert status.returncode == 0
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [["a", "a"], ["b.c", "b.c"]]
    sessions = run([*launch, "--list-sessions"], elsewhere).stdout.splitlines()
    assert [line.partition(":")[0] for line in sessions] == ["kvcached-a", "kvcached-b_c"]
    assert run([*launch, "--kill-all"], elsewhere).returncode == 0
    assert not processes_of(workplace.folder)
    assert run([*launch, "--status"], elsewhere).returncode == 1


def test_every_mistake_and_nothing_else(workplace: Workplace) -> None:
    """Exit code 2; each line begins with file and line."""
    workplace.file.write_text("instances:\n  - {model: a, engine: nope}\n  - {engine: sim, prot: 1}\n")
    done = run([*LAUNCH, "--config", str(workplace.file)], workplace.folder)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith(f"{workplace.file}:") for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--stop", "nope"], 2, "there is no 'nope' here; the known names are a, frontend"),
        (["--only", "frontend"], 2, "the router is off in this file"),
        (["--restart", "away"], 2, "away has a url: the launcher neither starts nor stops it"),
        (["--logs", "a"], 1, "a has no log yet"),
        (["--config", "missing.yaml"], 2, "no such file"),
        (["--config", "missing.yaml", "--kill-all"], 2, "no such file"),
        (["--config", "missing.yaml", "--kill-all", "--all"], 0, "no sessions"),
        (["--list-sessions"], 0, "no sessions"),
    ],
)
def test_answers(
    workplace: Workplace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    told: str,
) -> None:
    """Names are checked against the file; the default file is example-config.yaml in this folder."""
    monkeypatch.chdir(workplace.folder)
    workplace.file_name = "example-config.yaml"
    workplace.write(server("a"), {"model": "away", "url": "http://127.0.0.1:1"})
    assert main(words) == code
    shown = capsys.readouterr()
    assert told in (shown.err if code == 2 else shown.out)


@pytest.mark.parametrize(
    "words", [["--nope"], ["--follow"], ["--all"], ["--stop", "a", "--status"], ["--stat"], ["--logs"]]
)
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, also for options that mean nothing together and for cut ones."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_schema_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both without any file."""
    assert main(["--schema"]) == 0
    assert "instances" in json.loads(capsys.readouterr().out)["properties"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("torpor ")


def test_dry_run_shows_all_but_secrets(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exact command, the whole environment, what sleep added; neither keys nor tokens; no tmux needed."""
    monkeypatch.setenv("A_KEY", "open-sesame-1")
    monkeypatch.setenv("INHERITED_TOKEN", "open-sesame-2")
    monkeypatch.setenv("PATH", "")
    workplace.write(
        {
            "model": "m",
            "engine": "sglang",
            "port": 30000,
            "engine_args": ["--trust-remote-code"],
            "api_key_env": "A_KEY",
            "env": {"HF_TOKEN": "open-sesame-3", "PLAIN": "two words", "COPY": "open-sesame-1"},
        }
    )
    assert main(["--config", str(workplace.file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "sglang.launch_server --model-path m --trust-remote-code" in shown
    assert "--port 30000 --enable-memory-saver" in shown
    assert "PLAIN='two words'" in shown
    assert "HF_TOKEN='***'" in shown
    assert "INHERITED_TOKEN='***'" in shown
    assert "added so that it can sleep (sleep_flags: false leaves it out): --enable-memory-saver" in shown
    assert "sesame" not in shown
    assert main(["--config", str(workplace.file), "--check"]) == 0
    assert "sesame" not in capsys.readouterr().out


def test_check_says_what_is_open(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """A router or an engine that other machines reach without a key."""
    workplace.write(
        {"model": "m", "engine": "sim", "host": "0.0.0.0", "port": 101},
        {"model": "n", "engine": "sim", "port": 102},
        router={"enable_router": True, "router_host": "0.0.0.0", "router_port": 8080},
    )
    assert main(["--config", str(workplace.file), "--check"]) == 0
    shown = capsys.readouterr().out
    assert "OPEN: the router listens on 0.0.0.0:8080 without a key" in shown
    assert "OPEN: m listens on 0.0.0.0:101 without a key" in shown
    assert "OPEN: n" not in shown


def test_kill_all_works_while_the_file_is_broken(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """Sessions are known by their tags, so what runs can be stopped before the YAML is mended."""
    workplace.write(server("a"))
    workplace.up()
    workplace.file.write_text("instances: [")
    assert main(["--config", str(workplace.file), "--kill-all"]) == 0
    assert "kvcached-a: stopped" in capsys.readouterr().out
    assert not processes_of(workplace.folder)


def test_kill_all_of_everything_with_the_prefix(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    """--all needs no file and takes what was made by hand, but nothing without the prefix."""
    workplace.write(server("a"))
    workplace.up()
    tmux("new-session", "-d", "-s", "kvcached-byhand", "sleep", "60")
    tmux("new-session", "-d", "-s", "mine", "sleep", "60")
    assert main(["--config", "/no/such/file", "--list-sessions", "--all"]) == 0
    assert "kvcached-byhand: pid" in capsys.readouterr().out
    assert main(["--config", "/no/such/file", "--kill-all", "--all"]) == 0
    assert tmux("list-sessions", "-F", "#{session_name}") == "mine\n"
    assert not processes_of(workplace.folder)


def test_logs_follow(workplace: Workplace) -> None:
    """What is there at once, what comes later, and what a new start writes."""
    workplace.write(shell("a", "echo early; while [ ! -e go ]; do sleep 0.05; done; echo late; exec sleep 60"))
    workplace.up(wait=False)
    words = [*LAUNCH, "--config", str(workplace.file), "--logs", "a", "-f"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "early\n"
        (workplace.folder / "go").touch()
        assert following.stdout.readline() == "late\n"
        workplace.stop("a")
        workplace.up(wait=False)
        assert following.stdout.readline() == "early\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130


def test_an_interrupt_while_waiting_leaves_engines_up(workplace: Workplace) -> None:
    """Exit code 130, and how to look and stop is said."""
    workplace.write(shell("slow", "echo loading; exec sleep 60"))
    words = [*LAUNCH, "--config", str(workplace.file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        deadline = time.monotonic() + 10
        while "slow" not in workplace.panes() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert "interrupted; what was started goes on" in told
    assert "--kill-all" in told
    assert "Traceback" not in told
    assert not workplace.panes()["slow"].dead


def test_without_tmux_it_says_how_to_install_it(
    workplace: Workplace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, no traceback."""
    monkeypatch.setenv("PATH", str(workplace.folder))
    workplace.write(server("a"))
    assert main(["--config", str(workplace.file)]) == 1
    assert "apt-get install tmux" in capsys.readouterr().err


def test_the_door_goes_on_in_its_virtual_environment(tmp_path: Path) -> None:
    """Under a Python without our packages, with every argument, from any folder."""
    shutil.copy(ROOT / "launch.py", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    bare = {"PATH": os.environ["PATH"]}
    done = run([sys.executable, "-S", str(tmp_path / "launch.py"), "--config", "my file.yaml"], Path("/"), bare)
    assert (done.returncode, done.stdout) == (7, f"{tmp_path}/launch.py|--config|my file.yaml|")


def test_the_door_says_what_to_do_without_one(tmp_path: Path) -> None:
    """Exit code 1, and the command to install."""
    shutil.copy(ROOT / "launch.py", tmp_path)
    done = run([sys.executable, "-S", str(tmp_path / "launch.py")], Path("/"), {"PATH": os.environ["PATH"]})
    assert done.returncode == 1
    assert f"pip install -e {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_simulated_engine_and_its_sleep(workplace: Workplace) -> None:
    """An engine of kind sim comes up from its model name alone, and its sleep shows in the table."""
    port = free_port()
    workplace.write({"model": "org/m", "engine": "sim", "port": port})
    assert workplace.up() == 0
    httpx2.post(f"http://127.0.0.1:{port}/sleep?level=1").raise_for_status()
    assert workplace.status() == 0
    assert " asleep " in workplace.output
