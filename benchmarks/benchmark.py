"""The door: ``python benchmarks/benchmark.py --config example-config.yaml``. What it does is in ``orchestra``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.doorway import enter

if __name__ == "__main__":
    sys.exit(enter("benchmarks.orchestra"))
