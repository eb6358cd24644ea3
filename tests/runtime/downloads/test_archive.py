"""Archives, the good and the hostile."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.downloads import archive
from runtime.downloads.archive import limit, unpack
from runtime.downloads.errors import ArchiveInvalid
from runtime.downloads.fetch import corruption, fetch
from tests.runtime.downloads.stage import content, names

FILES = {"adapter_config.json": b"{}", "sub/weights": b"w" * 3_000_000}

Member = tarfile.TarInfo


def tar(path: Path, files: dict[str, bytes], *more: Member) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as made:
        for name, data in files.items():
            member = Member(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
        for member in more:
            made.addfile(member, io.BytesIO(b"\0" * member.size))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.mkdir("sub")
        for name, data in files.items():
            made.writestr(name, data)
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    entries = unpack(path, path.parent / "out", lambda: None)
    found = content(path.parent / "out")
    assert {name: entry.size for name, entry in entries.items()} == {name: len(data) for name, data in found.items()}
    return found


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar", "a.zip"])
@pytest.mark.parametrize("top", ["", "adapter/", "adapter/v1/"])
def test_what_is_in_it_comes_out(name: str, top: str, tmp_path: Path) -> None:
    """One folder around it all is taken off."""
    make = zipped if name.endswith("zip") else tar
    files = {f"{top}{file}": data for file, data in FILES.items()}
    expected = {f"{top.partition('/')[2]}{file}": data for file, data in FILES.items()}
    assert unpacked(make(tmp_path / name, files)) == expected


def test_names_that_begin_with_a_dot_and_a_slash(tmp_path: Path) -> None:
    """``tar c .`` writes them so."""
    folder = Member("./")
    folder.type = tarfile.DIRTYPE
    assert unpacked(tar(tmp_path / "a.tar.gz", {f"./{name}": data for name, data in FILES.items()}, folder)) == FILES


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a//b", "a\\..\\b", "a\nb", "x" * 300])
@pytest.mark.parametrize("kind", ["a.tar.gz", "a.zip"])
def test_names_that_lead_out_are_refused(name: str, kind: str, tmp_path: Path) -> None:
    """Nothing of the archive is kept, nor anything written elsewhere."""
    make = zipped if kind.endswith("zip") else tar
    with pytest.raises(ArchiveInvalid):
        unpacked(make(tmp_path / kind, FILES | {name: b"x"}))
    assert not (tmp_path / "out").exists()
    assert set(names(tmp_path)) == {kind, "out.new"}


def member(kind: bytes, link: str = "") -> Member:
    made = Member("bad")
    made.type, made.linkname = kind, link
    return made


SPECIAL = {
    "link out": member(tarfile.SYMTYPE, "/etc/passwd"),
    "link within": member(tarfile.SYMTYPE, "adapter_config.json"),
    "hard link": member(tarfile.LNKTYPE, "adapter_config.json"),
    "device": member(tarfile.CHRTYPE),
    "pipe": member(tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_refused(kind: str, tmp_path: Path) -> None:
    """Links within the folder too: no adapter needs one."""
    with pytest.raises(ArchiveInvalid, match="no regular file"):
        unpacked(tar(tmp_path / "a.tar.gz", FILES, SPECIAL[kind]))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    """There it is a mode bit of an ordinary entry."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(entry, "/etc/passwd")
    with pytest.raises(ArchiveInvalid, match="no regular file"):
        unpacked(tmp_path / "a.zip")


def test_a_bomb_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the sizes it claims; a zip that lies about them is cut off there."""
    monkeypatch.setattr(archive, "limit", lambda size: 1 << 20)
    large = Member("zeros")
    large.size = 2 << 20
    for made in (tar(tmp_path / "a.tar.gz", {}, large), zipped(tmp_path / "a.zip", {"zeros": b"\0" * large.size})):
        with pytest.raises(ArchiveInvalid, match="more than 1048576 bytes"):
            unpacked(made)
        assert content(tmp_path / "out.new") == {}


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    """Whatever comes out, it is not more than was claimed."""
    made = zipped(tmp_path / "a.zip", {"zeros": b"\0" * 500_000})
    data = made.read_bytes()
    made.write_bytes(data.replace(struct.pack("<I", 500_000), struct.pack("<I", 5_000)))
    with pytest.raises(ArchiveInvalid):
        unpacked(made)


def test_a_header_that_claims_to_be_huge(tmp_path: Path) -> None:
    """An extended header is read into memory as a whole: it may not be larger than any real one."""
    header = Member("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 34
    with gzip.open(tmp_path / "a.tar.gz", "wb") as made:
        made.write(header.tobuf(tarfile.USTAR_FORMAT) if header.size < 8**11 else header.tobuf(tarfile.GNU_FORMAT))
        made.write(b"\0" * 4096)
    with pytest.raises(ArchiveInvalid, match="header that is too large"):
        unpacked(tmp_path / "a.tar.gz")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    with pytest.raises(ArchiveInvalid, match="more than 3 files"):
        unpacked(tar(tmp_path / "a.tar.gz", {str(index): b"" for index in range(4)}))


BROKEN: dict[str, Callable[[Path], Path]] = {
    "cut.tar.gz": lambda path: tar(path, FILES),
    "cut.tar": lambda path: tar(path, FILES),
    "cut.zip": lambda path: zipped(path, FILES),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_archive_says_so(name: str, tmp_path: Path) -> None:
    """Cut short, or something else altogether."""
    made = BROKEN[name](tmp_path / name)
    made.write_bytes(made.read_bytes()[: made.stat().st_size * 2 // 3])
    with pytest.raises(ArchiveInvalid):
        unpacked(made)
    made.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(ArchiveInvalid):
        unpacked(made)


@pytest.mark.parametrize("files", [{}, {"a": b"", "a/b": b""}])
def test_an_archive_that_makes_no_folder_of_files(files: dict[str, bytes], tmp_path: Path) -> None:
    """Empty, or one name for a file and a folder."""
    with pytest.raises(ArchiveInvalid):
        unpacked(tar(tmp_path / "a.tar.gz", files))


def test_limits_leave_room_for_what_adapters_are() -> None:
    """A small one may still grow a good deal, a large one by its size."""
    assert limit(10) == 1 << 30
    assert limit(1 << 30) == 20 << 30


@pytest.mark.anyio
async def test_a_source_that_is_an_archive_becomes_its_content(tmp_path: Path) -> None:
    """Marker, checksums and revision are there as for any other; changed, it is another artefact."""
    made = tar(tmp_path / "adapter.tar.gz", {f"adapter/{name}": data for name, data in FILES.items()})
    artifact = await fetch(str(made), tmp_path / "out")
    assert content(artifact.path) == FILES
    assert (artifact.files, artifact.bytes) == (2, 3_000_002)
    assert await corruption(artifact.path) is None
    assert names(tmp_path) == ["adapter.tar.gz", "out"]
    tar(made, {"adapter_config.json": b"new"})
    assert (await fetch(str(made), tmp_path / "out")).revision != artifact.revision
    assert content(artifact.path) == {"adapter_config.json": b"new"}
