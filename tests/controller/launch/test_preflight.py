"""What is known before a start: programs, modules, ports."""

from __future__ import annotations

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from controller.launch import preflight
from tests.controller.launch.test_plan import UNIT
from tests.ports import free_port


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ((sys.executable, "-m", "http.server"), None),
        ((sys.executable, "-I", "-m", "nowhere.at_all"), "nowhere is not installed for"),
        ((sys.executable, "-c", "pass", "-m", "nowhere"), None),
        (("/no/such/program", "-m", "http"), "the program /no/such/program does not exist"),
        (("no-such-program",), "there is no program no-such-program in PATH"),
        (("./mine",), None),
        (("sh", "-c", "python -m nowhere"), None),
    ],
)
def test_programs_and_modules(tmp_path: Path, argv: tuple[str, ...], problem: str | None) -> None:
    """Relative ones are looked for in the YAML's folder; the module is asked of the interpreter that is to run it."""
    (tmp_path / "mine").touch(mode=0o755)
    unit = replace(UNIT, argv=argv, folder=tmp_path, environment={"PATH": "/usr/bin:/bin"})
    found = preflight.missing_program(unit)
    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_taken_port_is_seen_on_any_address(listens: str, host: str) -> None:
    """Also when the other one shares its port with whoever asks (SO_REUSEPORT, as vLLM does)."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((listens, 0))
        other.listen()
        assert "is taken by pid" in str(preflight.port_taken(host, other.getsockname()[1]))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "no.such.host.invalid", "192.0.2.1"])
def test_a_free_port_is_free(host: str) -> None:
    """An address that is none of this machine's is for the engine to complain about."""
    assert preflight.port_taken(host, free_port()) is None
