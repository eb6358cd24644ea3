"""Real tmux, real processes: what comes up, what does not, and what a second run does."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from benchmarks.virtual_time import run
from controller.launch import launcher
from controller.launch.launcher import Pace
from controller.launch.tmux import Tmux
from tests.controller.launch.conftest import SERVER, Workplace, processes_of, server, shell, tmux
from tests.ports import free_port


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_engines_and_frontend_come_up_in_a_session_each(workplace: Workplace) -> None:
    """Names with dots and slashes included; one program in each; the table and a curl are shown."""
    workplace.write(server("org/Llama-3.2-1B"), router={"enable_router": True, "router_port": free_port()})
    assert workplace.up() == 0
    panes = workplace.panes()
    assert {pane.session for pane in panes.values()} == {"kvcached-Llama-3_2-1B", "kvcached-frontend"}
    assert workplace.program("Llama-3.2-1B").pid == workplace.told("org/Llama-3.2-1B")["pid"]
    assert "tmux attach -t '=kvcached-Llama-3_2-1B'" in workplace.output
    assert "/v1/chat/completions -H" in workplace.output
    assert tmux("show-options", "-v", "-t", "=kvcached-frontend:", "mouse") == "on\n"
    assert tmux("list-panes", "-t", "=kvcached-frontend:", "-F", "#{history_limit}") == "100000\n"


def test_an_engine_runs_in_the_yaml_folder_with_all_files_it_may_open(workplace: Workplace) -> None:
    """Its folder is the YAML's and its soft limit of open files is the hard one."""
    workplace.write(server("a"))
    assert workplace.up() == 0
    told = workplace.told("a")
    assert told["folder"] == str(workplace.folder)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert told["files"] == [hard, hard]


def test_the_engine_gets_the_launchers_environment_not_the_tmux_servers(workplace: Workplace) -> None:
    """Also when the tmux server was started with another one; nothing of the terminal the launcher sat in."""
    subprocess.run(
        ["tmux", "-L", "default", "new-session", "-d", "-s", "mine", "sleep", "60"],
        env={**os.environ, "WHO": "the tmux server", "ONLY_TMUX": "1"},
        check=True,
    )
    workplace.environment |= {"WHO": "the launcher", "TMUX": "/tmp/other,1,0", "TMUX_PANE": "%7", "COLUMNS": "80"}
    workplace.write(server("a", env={"SAID": "by the user"}))
    assert workplace.up() == 0
    environment = workplace.told("a")["environment"]
    assert (environment["WHO"], environment["SAID"]) == ("the launcher", "by the user")
    assert not {"ONLY_TMUX", "TMUX", "TMUX_PANE", "COLUMNS"} & set(environment)
    assert environment["TERM"] in ("screen", "tmux-256color", "screen-256color")


def test_it_works_from_inside_tmux(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    """$TMUX of another server leads nobody astray."""
    monkeypatch.setenv("TMUX", "/tmp/nowhere/default,1,0")
    workplace.write(server("a"))
    assert workplace.up() == 0
    assert workplace.panes()["a"].session == "kvcached-a"


def test_no_secret_is_on_any_command_line(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the engine's nor tmux's nor that of anything else that ran, from start to end of a launch."""
    handed_over = tmp_path / "handed-over"
    handed_over.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(handed_over))
    seen: set[str] = set()
    watcher = subprocess.Popen([sys.executable, "-c", WATCH], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    workplace.write(server("a", env={"HF_TOKEN": "open-sesame-1"}, api_key_env="A_KEY"))
    workplace.environment["A_KEY"] = "open-sesame-2"
    assert workplace.up() == 0
    seen.update(watcher.communicate("done\n", timeout=10)[0].splitlines())
    assert any("tiny_server.py" in line for line in seen)
    assert any(str(handed_over) in line for line in seen)
    assert not [line for line in seen if "open-sesame" in line]
    assert workplace.told("a")["environment"]["HF_TOKEN"] == "open-sesame-1"
    assert not list(handed_over.iterdir())


WATCH = """
import pathlib, select, sys
seen = set()
while not select.select([sys.stdin], [], [], 0.002)[0]:
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen.add(file.read_bytes().replace(bytes(1), b" ").decode(errors="replace").replace(chr(10), " "))
        except OSError:
            pass
sys.stdout.write(chr(10).join(seen))
"""


def test_the_first_line_is_in_the_log_and_the_log_before_is_kept(workplace: Workplace) -> None:
    """Whatever an engine prints at once is there; a start puts the last log aside."""
    workplace.write(*(shell(f"m{number}", f"echo first of m{number}; exit 1") for number in range(4)))
    assert workplace.up() == 1
    for number in range(4):
        until(lambda number=number: workplace.log(f"m{number}") == f"first of m{number}\n")  # type: ignore[misc]
    workplace.up("m0")
    before = workplace.folder / "fleet.logs" / "m0.log.1"
    assert before.read_text() == "first of m0\n"
    assert before.stat().st_mode & 0o777 == 0o600


def test_logs_go_to_a_folder_with_an_odd_name(workplace: Workplace) -> None:
    """Signs that tmux and the shell expand are taken as they are."""
    workplace.write(shell("a", "echo here"), launch={"log_dir": "lo gs #{x}%Y'\"$HOME"})
    workplace.up()
    assert (workplace.folder / "lo gs #{x}%Y'\"$HOME" / "a.log").read_text() == "here\n"


def test_a_dead_engine_shows_its_last_words_and_stops_nobody(workplace: Workplace) -> None:
    """Last 20 lines, exit status, exit code 1; the other engine is up."""
    script = "for n in $(seq 30); do echo word $n; done; exit 7"
    workplace.write(shell("bad", script), server("good"))
    assert workplace.up() == 1
    assert "bad failed: died, exit status 7" in workplace.output
    assert "| word 11\n" in workplace.output
    assert "| word 30\n" in workplace.output
    assert "| word 10\n" not in workplace.output
    assert "good: ready" in workplace.output
    assert workplace.panes()["bad"].dead


def test_a_program_that_is_not_there_is_said_before_anything_starts(workplace: Workplace) -> None:
    """Neither a missing executable nor a missing module makes a session."""
    workplace.write(
        {"model": "v", "engine": "vllm", "port": free_port()},
        {"model": "x", "engine": "openai", "port": free_port(), "command": "no-such-server --port {port}"},
    )
    assert workplace.up() == 1
    assert "v failed: vllm is not installed for" in workplace.output
    assert "x failed: there is no program no-such-server in PATH" in workplace.output
    assert not workplace.panes()


def test_a_taken_port_is_the_engines_failure(workplace: Workplace) -> None:
    """Who holds it is named, and nothing is started beside it."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as taken:
        threading.Thread(target=taken.serve_forever, args=(0.05,)).start()
        port = taken.server_address[1]
        workplace.write({**server("a"), "port": port}, server("b"))
        workplace.up("b")
        assert workplace.up("a") == 1
        taken.shutdown()
    assert f"a failed: port {port} is taken by pid {os.getpid()} (" in workplace.output
    assert set(workplace.panes()) == {"b"}


def test_an_engine_started_by_hand_is_left_alone(workplace: Workplace) -> None:
    """It counts as up, is said to be outside tmux, and is not stopped either."""
    instance = server("a")
    workplace.write(instance)
    by_hand = subprocess.Popen([sys.executable, SERVER, str(instance["port"]), "a"], cwd=workplace.folder)
    try:
        until(lambda: (workplace.folder / "a.json").exists())
        assert workplace.up() == 0
        assert f"left alone (pid {by_hand.pid} (" in workplace.output
        assert "ready, outside tmux" in workplace.output
        assert workplace.stop("a") == 1
        assert by_hand.poll() is None
    finally:
        by_hand.kill()
        by_hand.wait()


def test_another_model_on_the_port_is_not_taken_for_this_engine(workplace: Workplace) -> None:
    """A healthy server that lists other models is a port that is taken."""
    instance = server("a")
    workplace.write(instance)
    other = subprocess.Popen([sys.executable, SERVER, str(instance["port"]), "b"], cwd=workplace.folder)
    try:
        until(lambda: (workplace.folder / "b.json").exists())
        assert workplace.up() == 1
        assert f"port {instance['port']} is taken by pid {other.pid}" in workplace.output
    finally:
        other.kill()
        other.wait()


def test_a_second_run_changes_nothing(workplace: Workplace) -> None:
    """Same pids, exit code 0, no word of differences."""
    workplace.write(server("a"), server("b"), router={"enable_router": True, "router_port": free_port()})
    workplace.up()
    before = {name: pane.pid for name, pane in workplace.panes().items()}
    assert workplace.up() == 0
    assert {name: pane.pid for name, pane in workplace.panes().items()} == before
    assert "differs" not in workplace.output


def test_what_has_died_is_started_again(workplace: Workplace) -> None:
    """A dead pane and a session that is gone; what runs stays as it is."""
    workplace.write(server("a"), server("b"), server("c"))
    workplace.up()
    before = {name: pane.pid for name, pane in workplace.panes().items()}
    os.kill(before["a"], signal.SIGKILL)
    Tmux().kill("kvcached-b")
    until(lambda: not {before["a"], before["b"]} & {process.pid for process in processes_of(workplace.folder)})
    assert workplace.up() == 0
    after = {name: pane.pid for name, pane in workplace.panes().items()}
    assert after["c"] == before["c"]
    assert not {after["a"], after["b"]} & {before["a"], before["b"]}
    assert "a: starting, had died (" in workplace.output
    assert "b: starting, its session was gone" in workplace.output


def test_what_differs_from_the_yaml_is_said_and_left(workplace: Workplace) -> None:
    """Changed arguments and the names of changed variables, never values; --restart applies them."""
    first = server("a", env={"MY_TOKEN": "open-sesame", "KEPT": "1"})
    router = {"enable_router": True, "router_port": free_port()}
    workplace.write(first, router=router)
    workplace.up()
    before = workplace.panes()["a"].pid
    changed = {**first, "command": first["command"] + " --more", "env": {"MY_TOKEN": "changed", "KEPT": "1"}}
    workplace.write(changed, router=router)
    assert workplace.up() == 0
    assert workplace.panes()["a"].pid == before
    assert "a differs from the YAML and was left as it is (--restart a applies it)" in workplace.output
    assert "arguments: runs without --more" in workplace.output
    assert "variables: MY_TOKEN\n" in workplace.output
    assert "the YAML file has changed since it was started" in workplace.output
    assert "sesame" not in workplace.output
    assert workplace.restart("a") == 0
    assert workplace.panes()["a"].pid != before
    assert workplace.told("a")["argv"][-1] == "--more"
    workplace.up()
    assert "a differs" not in workplace.output


def test_a_strangers_session_of_that_name_is_refused(workplace: Workplace) -> None:
    """It is neither used nor killed."""
    workplace.write(server("a"), server("b"))
    tmux("new-session", "-d", "-s", "kvcached-a", "sleep", "60")
    assert workplace.up() == 1
    assert "the tmux session kvcached-a was not made by this launcher" in workplace.output
    assert workplace.kill_all() == 0
    assert tmux("list-sessions", "-F", "#{session_name}") == "kvcached-a\n"


def test_engines_that_share_a_gpu_start_one_after_another(workplace: Workplace) -> None:
    """The second one waits for the first, also when that one fails; one with another GPU does not."""
    workplace.write(
        shell("a", "sleep 0.5; date +%s.%N > a.end; exit 1", gpus=[0]),
        shell("b", "date +%s.%N > b.start; exit 1", gpus=[0, 1]),
        shell("c", "date +%s.%N > c.start; exit 1", gpus=[2]),
    )
    workplace.up()
    files = ("a.end", "b.start", "c.start")
    moments = {name: float((workplace.folder / name).read_text()) for name in files}
    assert moments["c.start"] < moments["a.end"] < moments["b.start"]
    assert "b: waiting, it may share a GPU with a" in workplace.output


def test_launches_keep_their_distance() -> None:
    """However many want to start at once, and however late one of them comes."""

    async def starts() -> list[float]:
        pace, moments = Pace(0.4), []

        async def start(after: float) -> None:
            await asyncio.sleep(after)
            await pace.next()
            moments.append(asyncio.get_running_loop().time())

        await asyncio.gather(*(start(after) for after in (0, 0, 0, 2, 2.1)))
        return moments

    assert run(starts()) == pytest.approx([0, 0.4, 0.8, 2, 2.4])


def test_every_engine_waits_for_its_turn(workplace: Workplace) -> None:
    """That launch_delay_seconds gives; the frontend does not."""
    turns: list[float] = []

    class Counted(Pace):
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def next(self) -> None:
            turns.append(self.seconds)

    router = {"enable_router": True, "router_port": free_port()}
    workplace.write(server("a"), server("b"), router=router, launch_delay_seconds=90)
    with mock.patch.object(launcher, "Pace", Counted):
        assert workplace.up() == 0
    assert turns == [90, 90]


def test_only_and_no_wait(workplace: Workplace) -> None:
    """Just the named one is started, and nobody waits for it."""
    workplace.write(shell("slow", "sleep 60"), server("b"))
    began = time.monotonic()
    assert workplace.up("slow", wait=False) == 0
    assert time.monotonic() - began < 5
    assert set(workplace.panes()) == {"slow"}
    assert "starting" in workplace.output


def test_one_that_is_never_ready_is_a_failure(workplace: Workplace) -> None:
    """After the timeout it is left running and said so."""
    workplace.write(shell("slow", "echo loading; sleep 60"), launch={"ready_timeout_seconds": 0.5})
    assert workplace.up() == 1
    assert "slow failed: not ready after 0.5 s; it is left running" in workplace.output
    assert "| loading" in workplace.output
    assert not workplace.panes()["slow"].dead


def test_status_tells_asleep_from_dead_and_elsewhere(workplace: Workplace) -> None:
    """Exit code 1 when anything is not well; an instance with a url is asked, too."""
    running, away = server("a"), free_port()
    workplace.write(
        running, shell("bad", "exit 3"), {"model": "r", "engine": "openai", "url": f"http://127.0.0.1:{away}"}
    )
    workplace.up()
    assert workplace.status() == 1
    lines = {line.split()[0]: line for line in workplace.output.splitlines()}
    assert " ready " in lines["a"]
    assert "died (exit status 3)" in lines["bad"]
    assert "elsewhere, no answer" in lines["r"]
    workplace.stop("a")
    workplace.status()
    assert "stopped by launch.py --stop" in {line.split()[0]: line for line in workplace.output.splitlines()}["a"]
