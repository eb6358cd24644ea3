"""The environment a launched program gets. Pure: the launcher's own is handed in.

Precedence: the launcher's own < the virtual environment < what the kind needs < the user's. The tmux server's
environment, which may be weeks old, plays no part.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

MARKER = "TORPOR_UNIT"
"""In the environment of all that a launch starts: its processes are known by it even without their parent."""

LEFT_BEHIND = frozenset({"TMUX", "TMUX_PANE", "TERM", "COLUMNS", "LINES", "OLDPWD", "_", MARKER})
"""About the terminal the launcher runs in, or about the launcher itself."""


def marker(config: Path | str, name: str) -> str:
    return f"{config}#{name}"


def inherited(process: Mapping[str, str]) -> dict[str, str]:
    return {name: content for name, content in process.items() if name not in LEFT_BEHIND}


def compose(
    process: Mapping[str, str], declared: Mapping[str, str], *, folder: Path, venv: Path | None, mark: str
) -> dict[str, str]:
    """All variables of one program. ``declared``: what its kind and the user say, joined already."""
    environment = inherited(process)
    if venv is not None:
        environment.pop("PYTHONHOME", None)
        environment["VIRTUAL_ENV"] = str(venv)
        environment["PATH"] = os.pathsep.join([str(venv / "bin"), environment.get("PATH", os.defpath)])
    return {**environment, "PWD": str(folder), **declared, MARKER: mark}


def digests(declared: Mapping[str, str]) -> dict[str, str]:
    """What is kept of the values, which may be secret: enough to see that one has changed."""
    return {name: hashlib.sha256(f"{name}={content}".encode()).hexdigest()[:16] for name, content in declared.items()}
