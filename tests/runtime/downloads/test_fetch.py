"""One writer, many waiters; what a cancelled, failed or crashed download leaves; room on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from runtime.downloads import fetch as fetching
from runtime.downloads import transfer
from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import DownloadError, NoSpace, NotFound, SourceChanged, TargetUnusable
from runtime.downloads.fetch import Artifact, Progress, corruption, fetch
from runtime.downloads.keyed import fetch_keyed, folder_name
from runtime.downloads.part import sync_folder
from runtime.downloads.source import parse
from tests.patience import until
from tests.runtime.downloads.hub import Hub
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import Page, Web

pytestmark = pytest.mark.anyio

BODY = os.urandom(2 << 20)


async def test_who_comes_second_waits_sees_progress_and_fetches_nothing(site: Web, tmp_path: Path) -> None:
    """Also when it is another process: they know each other by the lock only, as here."""
    page = site.pages["/a.bin"] = Page(BODY, hold=asyncio.Event())
    assert page.hold is not None
    first = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out"))
    await page.held.wait()
    told: list[Progress] = []
    second = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out", on_progress=told.append))
    await until(lambda: told and told[-1].done_bytes)
    assert told[-1].total_bytes == len(BODY)
    assert not second.done()
    asked = len(site.asked)
    page.hold.set()
    assert await first == await second
    assert [one.headers.get("range") for one in site.asked[asked:]] == ["bytes=0-0"]
    assert names(tmp_path) == ["out"]


async def test_when_the_first_is_cancelled_the_second_does_it(site: Web, tmp_path: Path) -> None:
    """A wait that is cancelled disturbs nobody."""
    page = site.pages["/a.bin"] = Page(BODY, hold=asyncio.Event())
    first = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out"))
    await page.held.wait()
    seen: list[Progress] = []
    second = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out"))
    third = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out", on_progress=seen.append))
    await until(lambda: seen)
    third.cancel()
    await asyncio.wait([third])
    assert ".out.part" in names(tmp_path)
    page.hold = None
    first.cancel()
    await asyncio.wait([first])
    assert content((await second).path) == {"a.bin": BODY}
    assert names(tmp_path) == ["out"]


async def test_as_many_at_a_time_as_asked_for_and_no_more(site: Web, tmp_path: Path) -> None:
    """Files of a hub, all held by the server until it has seen how many come."""
    gate = asyncio.Event()
    hub = Hub(site, site)
    hub.publish("org/lora", {f"{index}": bytes([index]) * 50_000 for index in range(6)})
    files = [page for path, page in site.pages.items() if "/resolve/" in path]
    for page in files:
        page.hold = gate
    task = asyncio.create_task(
        fetch("org/lora", tmp_path / "out", Credentials(hf_endpoint=hub.endpoint), max_workers=3)
    )
    await until(lambda: sum(page.held.is_set() for page in files) == 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sum("/resolve/" in one.path for one in site.asked) == 3
    gate.set()
    assert (await task).files == 6


STEPS = 11
"""That rename, delete or sync, in a download that replaces an artefact of one file."""


@pytest.mark.parametrize("crash", range(1, STEPS + 2))
async def test_a_crash_at_any_step_of_the_last_moment(
    crash: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is left as a killed process leaves it, before each step that renames or deletes: the next call ends with
    the new content, and what is at the target in between is the old content, the new, or nothing.
    """
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("old")
    await fetch(str(source), tmp_path / "out")
    (source / "a").write_text("new")

    class Killed(BaseException):
        pass

    steps = 0

    def dying(real: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps >= crash:
                raise Killed
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying(Path.replace))
        patched.setattr(shutil, "rmtree", dying(shutil.rmtree))
        patched.setattr(fetching, "sync_folder", dying(sync_folder))
        with contextlib.suppress(Killed, BaseExceptionGroup):
            await fetch(str(source), tmp_path / "out")
            assert (crash, steps) == (STEPS + 1, STEPS)
    assert content(tmp_path / "out") in ({"a": b"old"}, {"a": b"new"}, {})
    assert not (tmp_path / "out").exists() or await corruption(tmp_path / "out") is None
    await fetch(str(source), tmp_path / "out")
    assert content(tmp_path / "out") == {"a": b"new"}
    assert names(tmp_path) == ["out", "source"]


async def test_an_artefact_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    """Where the part that was to take its place is gone: even when its source is."""
    (tmp_path / "a").write_text("a")
    await fetch(str(tmp_path / "a"), tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    (tmp_path / "a").unlink()
    with pytest.raises(NotFound):
        await fetch(str(tmp_path / "a"), tmp_path / "out")
    assert content(tmp_path / "out") == {"a": b"a"}
    assert names(tmp_path) == ["out"]


async def test_a_part_of_another_revision_is_not_gone_on_with(tmp_path: Path) -> None:
    """What it holds would be mixed with the new."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "b"):
        (source / name).write_bytes(name.encode() * 1000)

    def fail(progress: Progress) -> None:
        if progress.done_files:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fetch(str(source), tmp_path / "out", max_workers=1, on_progress=fail)
    assert names(tmp_path) == [".out.part", "source"]
    (source / "a").unlink()
    assert content((await fetch(str(source), tmp_path / "out")).path) == {"b": b"b" * 1000}
    assert names(tmp_path) == ["out", "source"]


async def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    """A file larger than any disk here; it takes no room itself."""
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(8 << 40)
    with pytest.raises(NoSpace, match=rf"{8 << 40} bytes are still to come, \d+ are free") as full:
        await fetch(str(tmp_path / "huge"), tmp_path / "out")
    assert not full.value.retriable
    assert not (tmp_path / "out").exists()


async def test_a_file_of_unknown_length_ends_before_the_disk_does(
    site: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never ends must not take the last byte: here more has to stay free than there is."""
    monkeypatch.setattr(transfer, "SPARE_BYTES", 1 << 60)
    site.pages["/a.bin"] = Page(BODY, framing="chunked", ranges=False)
    with pytest.raises(NoSpace):
        await fetch(site.url("/a.bin"), tmp_path / "out")


async def test_what_somebody_put_there_meanwhile_is_not_touched(site: Web, tmp_path: Path) -> None:
    """A download takes hours, and the folder was free when it began."""
    page = site.pages["/a.bin"] = Page(BODY, hold=asyncio.Event())
    assert page.hold is not None
    task = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out"))
    await page.held.wait()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    page.hold.set()
    with pytest.raises(TargetUnusable, match="left alone"):
        await task
    assert names(tmp_path / "out") == ["precious"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_the_disk_says(number: int) -> None:
    """Full is told apart from forbidden."""
    error = fetching._disk_error(Path("/x"), OSError(number, os.strerror(number)))
    assert isinstance(error, NoSpace) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert isinstance(error, DownloadError)


@pytest.mark.parametrize("target", ["/", "..", "x" * 250])
async def test_what_cannot_be_a_target(target: str, tmp_path: Path) -> None:
    """No name, or one too long for what stands beside it."""
    (tmp_path / "a").write_text("a")
    with pytest.raises(TargetUnusable):
        await fetch(str(tmp_path / "a"), tmp_path / target)
    assert names(tmp_path) == ["a"]


async def test_a_target_where_nothing_can_be_made(tmp_path: Path) -> None:
    """Below a file."""
    (tmp_path / "a").write_text("a")
    with pytest.raises(TargetUnusable):
        await fetch(str(tmp_path / "a"), tmp_path / "a" / "out")


async def test_a_marker_that_lies_is_not_believed(tmp_path: Path) -> None:
    """Of another version, broken, or with names that lead elsewhere: as if there were none."""
    (tmp_path / "a").write_text("a")
    marker = (await fetch(str(tmp_path / "a"), tmp_path / "out")).path / ".torpor-artifact.json"
    text = marker.read_text()
    for lie in ("", "[]", "null", "{}", text.replace('"version": 1', '"version": 2'), text.replace('"a"', '"../a"')):
        marker.write_text(lie)
        assert await corruption(tmp_path / "out") == "it has no completion marker"
        with pytest.raises(TargetUnusable):
            await fetch(str(tmp_path / "a"), tmp_path / "out")


async def test_revisions_lie_side_by_side(site: Web, tmp_path: Path) -> None:
    """Nothing changes under a path that an engine has loaded; unchanged, the path is the same."""
    hub = Hub(site, site)
    credentials = Credentials(hf_endpoint=hub.endpoint)
    hub.publish("org/lora", {"a": b"1"})
    first = await fetch_keyed("org/lora", tmp_path, credentials)
    hub.publish("org/lora", {"a": b"2"})
    second = await fetch_keyed("org/lora", tmp_path, credentials)
    assert second == await fetch_keyed("org/lora", tmp_path, credentials)
    assert first.path != second.path
    assert (content(first.path), content(second.path)) == ({"a": b"1"}, {"a": b"2"})
    assert [path.startswith("lora-") for path in names(tmp_path)] == [True, True]


async def test_a_source_without_a_revision_is_known_by_its_content(site: Web, tmp_path: Path) -> None:
    """It is asked for everything each time, and nothing changes under a path. Two at once come to the same."""
    url = site.url("/a")

    async def held(body: bytes) -> Artifact:
        site.pages["/a"] = Page(body, etag=None)
        one, other = await asyncio.gather(fetch_keyed(url, tmp_path), fetch_keyed(url, tmp_path))
        assert one == other
        return one

    first, second = await held(b"1"), await held(b"2")
    assert first.path != second.path
    assert (content(first.path), content(second.path)) == ({"a": b"1"}, {"a": b"2"})
    assert await held(b"1") == first
    assert len(names(tmp_path)) == 2


async def test_another_revision_than_the_expected_is_not_taken(tmp_path: Path) -> None:
    """What is at the target stays."""
    (tmp_path / "a").write_text("a")
    artifact: Artifact = await fetch(str(tmp_path / "a"), tmp_path / "out")
    (tmp_path / "a").write_text("b")
    with pytest.raises(SourceChanged):
        await fetch(str(tmp_path / "a"), tmp_path / "out", revision=artifact.revision)
    assert content(tmp_path / "out") == {"a": b"a"}


def test_names_of_folders_can_be_read_and_are_safe() -> None:
    """Whatever the URL."""
    assert folder_name(parse("hf://org/lora"), "1").startswith("lora-")
    assert folder_name(parse("https://host/_/"), "1").startswith("_-")
    assert folder_name(parse("https://host/..%2f..%2fx"), None).startswith("2f..-2fx-")
    urls = [folder_name(parse(f"https://host/a?{query}"), revision) for query in "ab" for revision in ("1", "2", None)]
    assert len({*urls}) == 6
