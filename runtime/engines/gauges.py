"""Reading single gauges out of an engine's metrics page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def total(page: str, names: Iterable[str]) -> float | None:
    """The sum of all samples of the named series; None when the page has none of them."""
    wanted = frozenset(names)
    found = [value for name, _, value in samples(page) if name in wanted]
    return sum(found) if found else None


def samples(page: str) -> Iterator[tuple[str, str, float]]:
    """Yield name, the label part as written, and value of each sample; lines that are none are skipped."""
    for line in page.splitlines():
        if not line or line.startswith("#"):
            continue
        head, brace, tail = line.rpartition("}")
        if not brace:
            head, _, tail = line.partition(" ")
        name, _, labels = head.partition("{")
        try:
            yield name.strip(), labels, float(tail.split()[0])  # a timestamp may follow the value
        except (ValueError, IndexError):
            continue
