"""The door: ``python benchmarks/overhead.py`` measures what a gateway's hop costs. What it does is in ``hop``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.doorway import enter

if __name__ == "__main__":
    sys.exit(enter("benchmarks.hop"))
