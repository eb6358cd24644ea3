"""Which folders a request may name: those below an allowed root, with every symlink followed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from runtime.sidecar.problems import BadRequest

LONGEST_PATH = 1024


class Roots:
    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(roots)

    def allow(self, text: str, what: str) -> Path:
        """The path, if it is below a root. Reads the disk; raises ``BadRequest`` that names ``what``."""
        if len(text) > LONGEST_PATH or not text.isprintable() or not text:
            raise BadRequest(f"{what} must be 1 to {LONGEST_PATH} printable characters")
        path = Path.home() / text.removeprefix("~").lstrip("/") if text == "~" or text.startswith("~/") else Path(text)
        if not path.is_absolute() or ".." in path.parts:
            raise BadRequest(f"{what} must be an absolute path without '..', not {text!r}")
        try:
            real = path.resolve()
            allowed = any(root.resolve() in real.parents for root in self._roots)
        except (OSError, RuntimeError) as broken:  # RuntimeError: symlinks in a circle
            raise BadRequest(f"{what} {text!r} cannot be followed: {broken}") from broken
        if not allowed:
            raise BadRequest(f"{what} {text!r} is not below {', '.join(map(str, self._roots))} (--allow-root)")
        return path
