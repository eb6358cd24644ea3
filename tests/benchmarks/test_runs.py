"""Whole runs: the program as a user starts it, a real router, simulated engines."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from benchmarks.orchestra import main
from benchmarks.places import CannotRun, Sessions
from controller.config.load import load
from tests.benchmarks.conftest import Gateway

OpenGateway = Callable[..., Gateway]

MODELS = ("org/fast", "org/slow")


@pytest.fixture
def refusing(engines: dict[str, str]) -> Iterator[str]:
    """org/slow answers two requests with 503 (which the gateway passes on), then goes on as ever."""
    url = f"{engines['org/slow']}/sim/faults"
    httpx2.post(url, json={"refuse": {"status": 503, "times": 2}}, trust_env=False).raise_for_status()
    yield "org/slow"
    httpx2.delete(url, trust_env=False)


def test_client_and_router_agree(open_gateway: OpenGateway) -> None:
    """Counts and tokens are equal, warm-up included; medians are of the same size, for every model.

    How near percentiles are depends on what else the machine does: docs/benchmarking.md has figures.
    """
    gateway = open_gateway()
    code, output = gateway.run(*["--no-tmux", "--duration", "3", "--output-len", "20", "--warmup", "3"])
    found = gateway.written()

    assert code == 0, output
    assert "Requests and tokens: client and router agree." in output
    for model, measured in zip(MODELS, found["models"], strict=True):
        stats = gateway.stats(model)
        assert measured["model"] == model
        assert measured["finished"] >= 20
        assert stats["total_requests"] == measured["finished"] + 3
        assert stats["completion_tokens"] == 20 * stats["total_requests"]
        assert measured["completion_tokens"] == measured["chunks"] == 20 * measured["finished"]
        assert measured["router"]["prompt_tokens"]["client"] == stats["prompt_tokens"] > 0
        for ours, theirs in (("latency", "response_time"), ("ttft", "time_to_first_token")):
            assert measured[ours]["p50"] == pytest.approx(stats[theirs]["p50"], rel=0.5, abs=0.05)
            assert set(measured[ours]) >= {"p50", "p90", "p99"}
        assert measured["itl"]["p50"] > 0
    assert found["total"]["finished"] == sum(measured["finished"] for measured in found["models"])


def test_sessions_stay_and_are_replaced(open_gateway: OpenGateway, own_tmux: Callable[..., str]) -> None:
    """A session per model shows the client's figures afterwards; the next run replaces it; --close ends it.

    The router asks for a key, which the clients get without its being on any command line.
    """
    gateway = open_gateway(key="secret-of-the-test")
    words = [
        "--request-rate",
        "20",
        "--duration",
        "0.5",
        "--output-len",
        "4",
        "--no-stream",
        "--endpoint",
        "completions",
    ]
    code, output = gateway.run(*words)
    sessions = own_tmux("list-sessions", "-F", "#{session_name} #{session_id}").split("\n")
    screen = own_tmux("capture-pane", "-p", "-t", "=benchmark-fast:")

    assert code == 0, output
    assert sorted(line.split()[0] for line in sessions if line) == ["benchmark-fast", "benchmark-slow"]
    assert "org/fast" in screen
    assert "done" in screen
    assert "errors: none" in screen
    assert "Requests and tokens: client and router agree." in output
    assert "secret-of-the-test" not in own_tmux("list-panes", "-a", "-F", "#{pane_start_command}")

    code, output = gateway.run(*words, "--only", "org/fast", "--close")
    left = own_tmux("list-sessions", "-F", "#{session_name} #{session_id}")

    assert code == 0, output
    assert left.strip() in sessions
    assert left.startswith("benchmark-slow ")


def test_a_strangers_session_is_left_alone(open_gateway: OpenGateway, own_tmux: Callable[..., str]) -> None:
    """A session of that name which no benchmark made is not replaced, and the reason is told."""
    place = Sessions(load(open_gateway(router=False).file), os.environ)
    own_tmux("new-session", "-d", "-s", "benchmark-slow", "sleep", "60")

    with pytest.raises(CannotRun, match="benchmark-slow is not a benchmark's"):
        place.close("benchmark-slow")
    assert "benchmark-slow" in own_tmux("list-sessions")


def test_errors_are_counted(open_gateway: OpenGateway, refusing: str) -> None:
    """Refused requests are errors by status, in the table, in the JSON and in the exit code."""
    gateway = open_gateway()
    code, output = gateway.run(*["--no-tmux", "--num-requests", "6", "--output-len", "4"])
    fast, slow = gateway.written()["models"]

    assert code == 1
    assert f"{refusing}: 2 x HTTP 503" in output
    assert (fast["failed"], fast["successful"]) == (0, 6)
    assert (slow["failed"], slow["successful"], slow["errors"]) == (2, 4, {"HTTP 503": 2})
    assert slow["router"]["counts_agree"]


def test_interrupted_runs_still_report(open_gateway: OpenGateway, engines: dict[str, str]) -> None:
    """Ctrl-C ends all clients and prints what there is; the router's counts hold the requests that were cut off."""
    gateway = open_gateway()
    process = gateway.start(*["--no-tmux", "--duration", "60", "--output-len", "20", "--concurrency", "2"])
    deadline = time.monotonic() + 20
    while gateway.stats("org/slow")["successful_requests"] < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    faults = f"{engines['org/slow']}/sim/faults"  # neither of the two may just be ending when they are cut off
    httpx2.post(faults, json={"hang": {"times": 2}}, trust_env=False).raise_for_status()
    while httpx2.get(faults, trust_env=False).json()["faults"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=15)
    _, slow = gateway.written()["models"]

    assert process.returncode == 0, output
    assert slow["interrupted"]
    assert slow["finished"] >= 3
    assert slow["abandoned"] == 2
    assert slow["router"]["total_requests"]["agrees"]
    assert slow["router"]["successful_requests"]["agrees"]


def test_another_server_has_no_account(open_gateway: OpenGateway, engines: dict[str, str]) -> None:
    """An engine can be measured without the router; there is nothing to compare with then, and that is said."""
    gateway = open_gateway(router=False)
    words = f"--no-tmux --only fast --base-url {engines['org/fast']}/v1 --num-requests 3 --output-len 2"
    code, output = gateway.run(*words.split())

    assert code == 0, output
    assert "nothing to compare with" in output
    assert gateway.written()["models"][0]["successful"] == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("--only nobody", 2, "there is no model 'nobody'"),
        ("--api-key-env NOT_SET_ANYWHERE", 2, "NOT_SET_ANYWHERE"),
        ("--base-url http://127.0.0.1:1", 1, "nothing answers at http://127.0.0.1:1"),
        ("--request-rate 1 --concurrency 2", 2, "not allowed with"),
    ],
)
def test_mistakes_are_told(
    open_gateway: OpenGateway, capsys: pytest.CaptureFixture[str], words: str, code: int, message: str
) -> None:
    """A wrong option or an absent router ends the program at once, in one plain message."""
    gateway = open_gateway(router=False)
    try:
        found: object = main(["--config", str(gateway.file), "--no-tmux", *words.split()])
    except SystemExit as ended:
        found = ended.code

    assert found == code
    assert message in capsys.readouterr().err
