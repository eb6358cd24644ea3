"""``python -m runtime --engine ENGINE``: the sidecar. ``python -m runtime fetch SOURCE TARGET``: a download by hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runtime.downloads.cli import main as fetch
from runtime.sidecar.program import main as sidecar


def main(argv: Sequence[str]) -> int:
    if argv[:1] == ["fetch"]:
        return fetch(argv[1:])
    return sidecar(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
