"""The door: ``.venv/bin/python benchmarks/residency.py`` shows what residency is worth where few of many models fit.

What it does is in ``many_models``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run() -> int:
    sys.path[:] = [str(ROOT), *(folder for folder in sys.path if Path(folder or ".").resolve() != ROOT / "benchmarks")]
    from benchmarks.many_models import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
