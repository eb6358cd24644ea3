"""Tables of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], first: int, others: int, margin: str = "") -> str:
    """``first``, ``others``: characters of the first column, and of each of the others."""
    return "\n".join(
        f"{margin}{name:<{first}}" + "".join(f"{cell:>{others}}" for cell in cells) for name, *cells in rows
    )
