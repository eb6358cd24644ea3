"""How the programs here are entered: with whatever Python, on to the one that has what they need."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
NEEDED = ("httptools", "httpx2", "libtmux", "msgspec", "psutil", "pydantic", "rich", "starlette", "uvicorn", "uvloop")


def enter(module: str) -> int:
    """Run ``main`` of ``module`` with this Python if it can be, with the one in ``.venv`` if that is another."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if sys.version_info >= (3, 11) and not missing:
        here = ROOT / "benchmarks"  # its modules are not to be taken for others of the same name
        sys.path[:] = [str(ROOT), *(folder for folder in sys.path if Path(folder or ".").resolve() != here)]
        code: int = import_module(module).main()
        return code
    python = VENV / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != VENV:
        os.execv(python, [str(python), *sys.argv])
    reason = f"lacks {', '.join(missing)}" if missing else "is older than 3.11"
    sys.stderr.write(f"{sys.executable} {reason}. Make the environment with scripts/up in {ROOT}.\n")
    return 1
