"""One file: what an earlier attempt left behind is counted in only as far as it can be right."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runtime.downloads import transfer
from runtime.downloads.errors import ChecksumMismatch
from runtime.downloads.fetch import fetch
from runtime.downloads.listing import RemoteFile
from runtime.downloads.transfer import Arrival
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import Page, Web

DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()
GIT = hashlib.sha1(b"blob 7\0" + DATA).hexdigest()


def arrived(path: Path, digest: str | None, size: int | None = 7, there: bytes = DATA[:3]) -> str:
    """The rest comes to what is there."""
    path.write_bytes(there)
    arrival = Arrival(RemoteFile("a", size, '"1"', digest), path)
    arrival.recall(lambda: None)
    arrival.append(bytearray(DATA[3:]))
    return arrival.finish().sha256


@pytest.mark.parametrize(
    ("digest", "size"),
    [(None, 7), (None, None), (f"sha256:{SHA256}", 7), (f"sha256:{SHA256}", None), (f"git:{GIT}", 7)],
)
def test_both_halves_are_in_the_checksum(digest: str | None, size: int | None, tmp_path: Path) -> None:
    """What an earlier attempt brought, and what comes now."""
    assert arrived(tmp_path / "a", digest, size) == SHA256


@pytest.mark.parametrize("digest", [f"sha256:{'0' * 64}", f"git:{'0' * 40}"])
def test_another_checksum_is_a_mismatch(digest: str, tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch, match="was promised"):
        arrived(tmp_path / "a", digest)


@pytest.mark.parametrize("there", [b"", DATA])
def test_another_length_is_a_mismatch(there: bytes, tmp_path: Path) -> None:
    """Too little, or too much: with a promised length, no digest is needed to see it."""
    with pytest.raises(ChecksumMismatch, match="bytes came, 7 were promised"):
        arrived(tmp_path / "a", None, there=there)


@pytest.mark.anyio
async def test_a_file_of_the_part_that_was_cut_is_fetched_again(tmp_path: Path) -> None:
    """A machine that stopped may have lost the end of what was whole."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 1000)
    (source / "b").write_bytes(b"b" * 2000)

    def fail(progress: object) -> None:
        if transfer_done():
            raise ZeroDivisionError

    def transfer_done() -> bool:
        return (tmp_path / ".out.part" / "files" / "b").exists()

    with pytest.raises(ZeroDivisionError):
        await fetch(str(source), tmp_path / "out", max_workers=1, on_progress=fail)
    (tmp_path / ".out.part" / "files" / "b").write_bytes(b"b" * 1999)
    assert content((await fetch(str(source), tmp_path / "out")).path) == content(source)


@pytest.mark.anyio
async def test_a_mismatch_leaves_no_bytes_to_go_on_with(
    site: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a wrong file is the start of a right one."""

    def wrong(arrival: Arrival) -> None:
        raise ChecksumMismatch("as if")

    site.pages["/a.bin"] = Page(DATA)
    with monkeypatch.context() as patched, pytest.raises(ChecksumMismatch):
        patched.setattr(Arrival, "finish", wrong)
        await fetch(site.url("/a.bin"), tmp_path / "out")
    assert names(tmp_path / ".out.part" / "pending") == []
    assert content((await fetch(site.url("/a.bin"), tmp_path / "out")).path) == {"a.bin": DATA}


def test_pauses_grow_between_attempts() -> None:
    """A server in trouble is not hammered."""
    assert list(transfer.PAUSES) == sorted(transfer.PAUSES)
