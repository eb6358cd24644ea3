"""Which variables an engine gets, and which values may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import controller
from controller.launch import environment
from controller.launch.environment import MARKER
from controller.launch.mask import Mask
from controller.launch.unit import (
    engine_unit,
    frontend_command,
    frontend_unit,
    launchers_environment,
    sleep_additions,
)
from tests.controller.launch.conftest import Workplace

PROCESS = {"PATH": "/bin", "A": "process", "B": "process", "TMUX": "x", "TMUX_PANE": "%1", "COLUMNS": "9"}


@pytest.mark.parametrize(
    ("declared", "venv", "expected"),
    [
        ({}, None, {"PATH": "/bin", "A": "process", "B": "process"}),
        ({"B": "user"}, None, {"PATH": "/bin", "A": "process", "B": "user"}),
        (
            {},
            Path("/v"),
            {"PATH": "/v/bin:/bin", "VIRTUAL_ENV": "/v", "A": "process", "B": "process"},
        ),
        (
            {"PATH": "/mine", "VIRTUAL_ENV": "/w"},
            Path("/v"),
            {"PATH": "/mine", "VIRTUAL_ENV": "/w", "A": "process", "B": "process"},
        ),
    ],
)
def test_precedence(declared: dict[str, str], venv: Path | None, expected: dict[str, str]) -> None:
    """The launcher's own below the virtual environment's below what is declared; the terminal's are left behind."""
    found = environment.compose(PROCESS, declared, folder=Path("/f"), venv=venv, mark="m")
    assert found == {**expected, "PWD": "/f", environment.MARKER: "m"}


def test_the_files_own_precedence_reaches_the_engine(workplace: Workplace) -> None:
    """process < what the kind adds < kvcached < engine_env and env < kvcached_env."""
    workplace.environment |= {"A": "process", "B": "process", "VLLM_SERVER_DEV_MODE": "process"}
    workplace.write(
        {"model": "m", "engine": "sim", "engine_env": ["C=engine", "D=engine"], "kvcached_env": ["D=instance"]},
        kvcached={"b": "global", "c": "global", "d": "global"},
    )
    found = workplace.operations().units[0].environment
    assert [found[name] for name in "ABCD"] == ["process", "global", "engine", "instance"]
    assert found["VLLM_SERVER_DEV_MODE"] == "1"


def test_the_router_is_ours_whatever_lies_beside_the_yaml(workplace: Workplace) -> None:
    """kvcached's own folder has a router.py: the folder of the YAML is not on the router's path."""
    workplace.write({"model": "m", "engine": "sim"}, router={"enable_router": True})
    config = workplace.config()
    unit = frontend_unit(config, {"PYTHONPATH": "/mine"}, frontend_command(config))
    assert unit.argv[1:] == ("-P", "-m", "router", "--config", str(workplace.file))
    assert unit.environment["PYTHONPATH"].endswith(":/mine")


def test_digests_tell_values_apart_and_hide_them() -> None:
    """Equal values of different names have different digests, too."""
    found = environment.digests({"A": "secret", "B": "secret"})
    assert found["A"] != found["B"]
    assert found["A"] != environment.digests({"A": "other"})["A"]
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("HF_TOKEN", True),
        ("OPENAI_API_KEY", True),
        ("API_KEYS", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("PGPASSWORD", True),
        ("KEY_2", True),
        ("KVCACHED_MAX_CACHED_TOKENS", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("MONKEY", False),
        ("PATH", False),
    ],
)
def test_which_variables_are_hidden(name: str, hidden: bool) -> None:
    """By the end of their names; counts of tokens are no secret."""
    assert Mask().value(name, "value") == ("***" if hidden else "value")


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (
            "serve --port 1 --tokenizer x --max-num-batched-tokens 9",
            "serve --port 1 --tokenizer x --max-num-batched-tokens 9",
        ),
        ("serve --api-key k1 k2 --port 1", "serve --api-key *** *** --port 1"),
        ("serve --api-key=k1 next", "serve --api-key=*** next"),
        ("serve --url http://me:pw@host/ known", "serve --url http://***@host/ ***"),
    ],
)
def test_which_arguments_are_hidden(argv: str, shown: str) -> None:
    """What follows a flag for a key, a key that is known, a password in a URL."""
    assert " ".join(Mask(("known",)).words(argv.split())) == shown


def test_what_sleep_adds_is_told_apart(workplace: Workplace) -> None:
    """Flags and variables that are there only for sleep; nothing with sleep_flags: false."""
    workplace.write(
        {"model": "v", "engine": "vllm", "port": 101},
        {"model": "s", "engine": "sglang", "port": 102},
        {"model": "n", "engine": "vllm", "port": 103, "sleep_flags": False},
        {"model": "u", "engine": "vllm", "port": 104, "engine_args": ["--enable-sleep-mode"]},
    )
    config = workplace.config()
    found = [sleep_additions(instance.spec) for instance in config.instances]
    assert [added.flags for added in found] == [("--enable-sleep-mode",), ("--enable-memory-saver",), (), ()]
    assert [bool(added.variables) for added in found] == [True, False, False, True]
    unit = engine_unit(config, config.instances[0], {})
    assert "VLLM_SERVER_DEV_MODE" in unit.declared


@pytest.mark.parametrize("path", [None, "/mine", "/mine:/yours"])
def test_the_gateway_hands_on_what_its_launcher_had(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    """What the launcher added for the gateway alone is taken off; in any other process nothing is."""
    root = str(Path(controller.__file__).resolve().parents[1])
    monkeypatch.delenv(MARKER, raising=False)
    monkeypatch.setenv("PYTHONPATH", root)
    assert launchers_environment()["PYTHONPATH"] == root
    monkeypatch.setenv(MARKER, "/f.yaml#frontend")
    monkeypatch.setenv("PYTHONPATH", f"{root}:{path}" if path else root)
    assert launchers_environment().get("PYTHONPATH") == path
