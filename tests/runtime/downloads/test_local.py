"""Folders and files of this machine become artefacts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.downloads.errors import NotFound, SourceInvalid, TargetUnusable
from runtime.downloads.fetch import Progress, corruption, fetch
from runtime.downloads.local import CHUNK
from tests.runtime.downloads.stage import content, names

pytestmark = pytest.mark.anyio


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder as adapters are, with something below it."""
    folder = tmp_path / "adapter"
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(3 << 20))
    (folder / "sub" / "empty").touch()
    return folder


@pytest.mark.parametrize("form", ["{}", "file://{}", "pvc:/{}", "pvc://{}"])
async def test_every_spelling_of_a_path_is_copied(form: str, adapter: Path, tmp_path: Path) -> None:
    """Content, counts and progress are those of the folder; nothing stays beside it."""
    told: list[Progress] = []
    target = tmp_path / "made" / "here"
    artifact = await fetch(form.format(adapter), target, on_progress=told.append)
    assert content(target) == content(adapter)
    assert (artifact.path, artifact.files, artifact.bytes) == (target, 3, (3 << 20) + 8)
    assert told[-1] == Progress(artifact.bytes, artifact.bytes, 3, 3)
    assert [done.done_bytes for done in told] == sorted(done.done_bytes for done in told)
    assert names(target.parent) == ["here"]
    assert await corruption(target) is None


async def test_one_file_is_a_folder_of_one(adapter: Path, tmp_path: Path) -> None:
    """The target is always a folder."""
    artifact = await fetch(str(adapter / "adapter_config.json"), tmp_path / "out")
    assert content(artifact.path) == {"adapter_config.json": b'{"r": 8}'}


async def test_what_is_there_unchanged_is_left_alone(adapter: Path, tmp_path: Path) -> None:
    """The second call does not write."""
    first = await fetch(str(adapter), tmp_path / "out")
    before = (tmp_path / "out").stat().st_ino
    assert await fetch(str(adapter), tmp_path / "out") == first
    assert (tmp_path / "out").stat().st_ino == before


async def test_a_changed_source_is_a_new_artefact(adapter: Path, tmp_path: Path) -> None:
    """The stale one is never given, not even when the size is the same; who has the old file open keeps it."""
    first = await fetch(str(adapter), tmp_path / "out")
    with (first.path / "adapter_config.json").open() as held:
        (adapter / "adapter_config.json").write_text('{"r": 9}')
        second = await fetch(str(adapter), tmp_path / "out")
        assert second.revision != first.revision
        assert (second.path / "adapter_config.json").read_text() == '{"r": 9}'
        assert held.read() == '{"r": 8}'


async def test_a_damaged_artefact_is_fetched_again(adapter: Path, tmp_path: Path) -> None:
    """Sizes are looked at on reuse; the full check also finds what kept its size."""
    out = (await fetch(str(adapter), tmp_path / "out")).path
    (out / "adapter_config.json").write_text('{"r": 7}')
    assert "checksum" in str(await corruption(out))
    (out / "adapter_config.json").write_text("")
    assert "0 bytes" in str(await corruption(out))
    await fetch(str(adapter), out)
    assert content(out) == content(adapter)


async def test_what_others_put_there_is_not_touched(adapter: Path, tmp_path: Path) -> None:
    """A folder without our marker, a file or a link at the target is an error; an empty folder is none."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "precious").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "empty").mkdir()
    for name in ("theirs", "link", "theirs/precious"):
        with pytest.raises(TargetUnusable, match="left alone"):
            await fetch(str(adapter), tmp_path / name)
    assert content(tmp_path / "theirs") == {"precious": b"x"}
    await fetch(str(adapter), tmp_path / "empty")


async def test_links_to_files_are_followed_as_the_hubs_cache_has_them(adapter: Path, tmp_path: Path) -> None:
    """The copy holds the content. A link to a folder, a pipe or a socket is refused."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").symlink_to(adapter / "adapter_config.json")
    out = (await fetch(str(snapshot), tmp_path / "out")).path
    assert content(out) == {"config.json": b'{"r": 8}'}
    assert not (out / "config.json").is_symlink()
    (snapshot / "more").symlink_to(adapter)
    with pytest.raises(SourceInvalid, match="link to a folder"):
        await fetch(str(snapshot), tmp_path / "out")
    (snapshot / "more").unlink()
    os.mkfifo(snapshot / "pipe")
    with pytest.raises(SourceInvalid, match="neither a file nor a folder"):
        await fetch(str(snapshot), tmp_path / "out")


async def test_a_file_that_changes_while_it_is_copied_is_never_mixed(tmp_path: Path) -> None:
    """One chunk of it has been read when it is written anew, with the same size."""
    source = tmp_path / "weights"
    source.write_bytes(b"1" * (CHUNK + 10))
    told: list[Progress] = []

    def rewrite_once(progress: Progress) -> None:
        if progress.done_bytes and not told:
            told.append(progress)
            source.write_bytes(b"2" * (CHUNK + 10))

    artifact = await fetch(str(source), tmp_path / "out", on_progress=rewrite_once)
    assert told[0].done_bytes == CHUNK
    assert content(artifact.path) == {"weights": b"2" * (CHUNK + 10)}


async def test_source_and_target_within_each_other_are_refused(adapter: Path, tmp_path: Path) -> None:
    """Else the copy would copy itself, or replace its source."""
    for target in (adapter, adapter / "sub" / "copy", tmp_path):
        with pytest.raises(TargetUnusable, match="within each other"):
            await fetch(str(adapter), target)


async def test_nothing_there_is_not_found(tmp_path: Path) -> None:
    """No folder, or one without files; the target is not made."""
    (tmp_path / "hollow").mkdir()
    for source in (tmp_path / "none", tmp_path / "hollow"):
        with pytest.raises(NotFound):
            await fetch(str(source), tmp_path / "out")
    assert names(tmp_path) == ["hollow"]
