"""The door: ``python benchmarks/prefix_cache.py`` shows what prefix affinity is worth. What it does is in ``affinity``.

It needs no environment: Python 3.11 or later is enough.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run() -> int:
    sys.path[:] = [str(ROOT), *(folder for folder in sys.path if Path(folder or ".").resolve() != ROOT / "benchmarks")]
    from benchmarks.affinity import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
