"""What is wrong with a configuration, said so that it can be mended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake: its line in the file (from 1), the key, what is wrong, and what would be right."""

    line: int
    key: str
    problem: str
    fix: str = ""

    def render(self, file: Path) -> str:
        where = f"{file}:{self.line}: " + (f"{self.key}: " if self.key else "")
        text = where + self.problem + (f" ({self.fix})" if self.fix else "")
        # One line, and one that any terminal can print: keys are the user's own text.
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class ConfigError(Exception):
    """A configuration that cannot be used; all of its mistakes."""

    def __init__(self, file: Path, mistakes: Sequence[Mistake]) -> None:
        self.file = file
        self.mistakes = tuple(sorted(set(mistakes)))
        super().__init__("\n".join(mistake.render(file) for mistake in self.mistakes))


def key_of(path: KeyPath) -> str:
    """``("instances", 0, "model")`` → ``instances[0].model``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
