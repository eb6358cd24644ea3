"""The door: ``python benchmarks/benchmark.py --config example-config.yaml``. What it does is in ``orchestra``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
NEEDED = ("httptools", "httpx2", "libtmux", "msgspec", "psutil", "pydantic", "rich", "uvloop", "yaml")


def run() -> int:
    """Go on with this Python if it can, with the one in ``.venv`` if that is another, else say what to do."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if sys.version_info >= (3, 11) and not missing:
        sys.path[:] = [
            str(ROOT),
            *(folder for folder in sys.path if Path(folder or ".").resolve() != ROOT / "benchmarks"),
        ]
        from benchmarks.orchestra import main

        return main()
    python = VENV / "bin" / "python"
    if python.exists() and Path(sys.prefix).resolve() != VENV:
        os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])
    reason = f"lacks {', '.join(missing)}" if missing else "is older than 3.11"
    sys.stderr.write(f"{sys.executable} {reason}. Make the environment with scripts/up in {ROOT}.\n")
    return 1


if __name__ == "__main__":
    sys.exit(run())
