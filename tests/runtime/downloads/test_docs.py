"""docs/downloads.md, held against the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import settings
from runtime.downloads import archive, errors, part, source, transfer
from runtime.downloads.credentials import NAMES
from runtime.downloads.errors import DownloadError
from runtime.downloads.listing import MARKER

PAGE = (Path(__file__).parents[3] / "docs" / "downloads.md").read_text()


class Recorder(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def get(self, name: str, default: object = None) -> None:  # type: ignore[override]
        self.asked.add(name)


def words() -> Iterator[str]:
    recorder = Recorder()
    settings.read(recorder)
    yield from (name for name in recorder.asked if name != "REQUEST_TIMEOUT")
    yield from NAMES
    yield from archive.SUFFIXES
    yield from (found.strip() for found in source.SCHEMES.replace(" and ", ", ").split(",") if "http" not in found)
    yield MARKER
    yield f"{archive.MAX_MEMBERS:,} files"
    yield f"{part.SPARE_BYTES >> 20} MiB"
    yield {6: "six times"}[len(transfer.PAUSES) + 1]
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, DownloadError) and error is not DownloadError:
            yield f"`{name}`"


@pytest.mark.parametrize("word", sorted(words()))
def test_what_there_is_is_on_the_page(word: str) -> None:
    """Keys, variables, schemes, errors, numbers."""
    assert word in PAGE


def test_errors_are_on_their_side_of_the_line() -> None:
    """Those that may be retried are named first."""
    line = PAGE[PAGE.index("Errors (`runtime") :]
    named, rest = line.split("may (`retriable`)")
    for error in DownloadError.__subclasses__():
        assert (f"`{error.__name__}`" in named) == error.retriable
        assert (f"`{error.__name__}`" in rest) != error.retriable
