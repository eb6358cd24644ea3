"""Which Torpor this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def torpor_version() -> str:
    try:
        return version("torpor")
    except PackageNotFoundError:
        return "unknown"
