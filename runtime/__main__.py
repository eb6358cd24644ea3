"""``python -m runtime fetch SOURCE TARGET``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runtime.downloads.cli import main as fetch


def main(argv: Sequence[str]) -> int:
    if argv[:1] == ["fetch"]:
        return fetch(argv[1:])
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
