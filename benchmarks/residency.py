"""The door: ``python benchmarks/residency.py`` shows what residency is worth where few of many models fit.

What it does is in ``many_models``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.doorway import enter

if __name__ == "__main__":
    sys.exit(enter("benchmarks.many_models"))
