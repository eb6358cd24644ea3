"""What can be known to fail before a unit is started. Blocks."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

from controller.launch.unit import Unit
from runtime.processes import listener

IMPORT_SECONDS = 60
FIND = "import importlib.util, sys; sys.exit(0 if importlib.util.find_spec(sys.argv[1]) else 3)"


def obstacle(unit: Unit) -> str | None:
    """Why ``unit`` cannot be started; None when nothing speaks against it."""
    return missing_program(unit) or port_taken(unit.host, unit.port)


def missing_program(unit: Unit) -> str | None:
    program = unit.argv[0]
    path = unit.environment.get("PATH")
    found = shutil.which(str(unit.folder / program) if "/" in program else program, path=path)
    if found is None:
        return f"the program {program} does not exist" if "/" in program else f"there is no program {program} in PATH"
    flags, module = module_of(unit.argv)
    if module is None or not Path(program).name.startswith("python"):
        return None
    package = module.partition(".")[0]
    check = [found, *flags, "-c", FIND, package]
    try:
        done = subprocess.run(
            check,
            cwd=unit.folder,
            env=dict(unit.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=IMPORT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        return f"{program} does not run: {failed}"
    if done.returncode == 3:
        return f"{package} is not installed for {program}: install it there, or give venv_path with using_venv: true"
    return None


def module_of(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Python's own flags in front of ``-m``, and the module behind it."""
    flags: list[str] = []
    for index, word in enumerate(argv[1:], start=1):
        if word == "-m":
            return flags, argv[index + 1] if index + 1 < len(argv) else None
        if word[:1] != "-" or word[1:].strip("BEIOPSsu"):
            break
        flags.append(word)
    return flags, None


def port_taken(host: str, port: int) -> str | None:
    """Who listens there already. Two servers that share a port share its requests too, without a word."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return None  # an address the engine's own arguments explain better
    if any(_is_taken(family, address) for family, _, _, _, address in found):
        return f"port {port} is taken by {holder(port)}"
    return None


def _is_taken(family: int, address: tuple[object, ...]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind(address)
        except OSError as refused:
            return refused.errno == errno.EADDRINUSE
    return False


def holder(port: int) -> str:
    """Pid and name of who listens; never its arguments, which may hold a key."""
    process = listener(port)
    if process is None:
        return "a process of another user"
    pid = int(process.partition(":")[0])
    try:
        return f"pid {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"pid {pid}"
