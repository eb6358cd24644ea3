"""The door: ``python benchmarks/soak.py --minutes 10`` shows whether a gateway holds out. What it does is in
``endurance``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.doorway import enter

if __name__ == "__main__":
    sys.exit(enter("benchmarks.endurance"))
