"""The door: ``python benchmarks/soak.py --minutes 10`` shows whether a gateway holds out. What it does is in
``endurance``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
NEEDED = ("httptools", "httpx2", "msgspec", "starlette", "uvicorn", "uvloop")


def run() -> int:
    """With this Python if it has what is needed, else with the one in ``.venv``, as ``benchmark`` does."""
    if sys.version_info >= (3, 11) and all(find_spec(name) for name in NEEDED):
        here = ROOT / "benchmarks"
        sys.path[:] = [str(ROOT), *(folder for folder in sys.path if Path(folder or ".").resolve() != here)]
        from benchmarks.endurance import main

        return main()
    python = VENV / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != VENV:
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    sys.stderr.write(f"{sys.executable} lacks what the router needs. Make the environment with scripts/up in {ROOT}.\n")
    return 1


if __name__ == "__main__":
    sys.exit(run())
