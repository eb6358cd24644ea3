"""The door: ``python launch.py --config example-config.yaml``. All it does is in ``controller.cli``."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
NEEDED = ("libtmux", "httptools", "httpx2", "psutil", "pydantic", "rich", "sqlalchemy", "alembic", "yaml")


def run() -> int:
    """Go on with this Python if it can, with the one in ``.venv`` if that is another, else say what to do."""
    if sys.stdout is None:  # closed by whoever started us; libraries look at it as they are imported
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open as long as the program
    missing = [name for name in NEEDED if find_spec(name) is None]
    if sys.version_info >= (3, 11) and not missing:
        sys.path.insert(0, str(HERE))
        from controller.cli import main

        return main()
    python = VENV / "bin" / "python"
    # folders are compared, for a virtual environment's interpreter is a link to the one that made it
    if python.exists() and Path(sys.prefix).resolve() != VENV:
        os.execv(python, [str(python), str(HERE / "launch.py"), *sys.argv[1:]])
    reason = f"lacks {', '.join(missing)}" if missing else "is older than 3.11"
    sys.stderr.write(f"{sys.executable} {reason}.\n")
    sys.stderr.write(f"Make the environment with scripts/up in {HERE}, or install: pip install -e {HERE}\n")
    return 1


if __name__ == "__main__":
    sys.exit(run())
