"""Files of adapters that no engine has loaded any more."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from runtime.downloads import marker


def remove(home: Path, in_use: Iterable[str]) -> None:
    """Delete what was downloaded into ``home``, one adapter's own folder, and is not ``in_use``. Writes to the disk.

    Only whole folders with our marker go; whatever else lies there is somebody else's.
    """
    kept = {Path(path).resolve() for path in in_use}
    if home.is_symlink() or not home.is_dir():
        return
    for folder in home.iterdir():
        mine = not folder.is_symlink() and folder.is_dir() and marker.read(folder) is not None
        if mine and folder.resolve() not in kept:
            shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # not empty
        home.rmdir()
