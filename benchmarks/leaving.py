"""The door: ``python benchmarks/leaving.py`` measures how soon an engine is told that a client has left.

What it does is in ``departures``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.doorway import enter

if __name__ == "__main__":
    sys.exit(enter("benchmarks.departures"))
