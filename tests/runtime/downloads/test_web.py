"""Files from the web, from a server that does everything wrong that servers do."""

from __future__ import annotations

import asyncio
import os
from itertools import accumulate
from pathlib import Path

import httpx2
import pytest

from runtime.downloads import http, transfer
from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import (
    AccessDenied,
    DownloadError,
    NotFound,
    SourceChanged,
    SourceInvalid,
    SourceUnreachable,
)
from runtime.downloads.fetch import Progress, fetch
from tests.runtime.downloads.stage import content, names
from tests.runtime.downloads.web_server import Page, Web, web

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

BODY = os.urandom(5 << 20)


async def test_a_file_comes_whole_and_once(site: Web, tmp_path: Path) -> None:
    """The second call asks whether it has changed, and no more."""
    site.pages["/a/adapter%20one.bin"] = Page(BODY)
    told: list[Progress] = []
    artifact = await fetch(site.url("/a/adapter%20one.bin?sig=SECRET#x"), tmp_path / "out", on_progress=told.append)
    assert content(artifact.path) == {"adapter one.bin": BODY}
    assert told[0] == Progress(0, len(BODY), 0, 1)
    assert told[-1] == Progress(len(BODY), len(BODY), 1, 1)
    assert "SECRET" not in (tmp_path / "out" / ".torpor-artifact.json").read_text() + repr(artifact)
    asked = len(site.asked)
    assert await fetch(site.url("/a/adapter%20one.bin?sig=SECRET"), tmp_path / "out") == artifact
    assert [one.headers["range"] for one in site.asked[asked:]] == ["bytes=0-0"]


async def test_a_cut_connection_is_taken_up_where_it_broke(site: Web, tmp_path: Path) -> None:
    """As often as it brings something new, and that may be often; each byte is sent once."""
    cuts = [1 << 20, 100_000, 1, 0, 200_000, 0, 1, 300_000, 2 << 20]
    site.pages["/a.bin"] = Page(BODY, cuts=[*cuts])
    out = (await fetch(site.url("/a.bin"), tmp_path / "out")).path
    assert content(out) == {"a.bin": BODY}
    starts = [int(one.headers["range"][6:-1]) for one in site.asked[2:]]
    assert starts == list(accumulate(cuts))
    assert len(cuts) > len(transfer.PAUSES)


async def test_a_server_that_sends_nothing_more_is_given_up(site: Web, tmp_path: Path) -> None:
    """The error may be retried, and the retry goes on from what came."""
    site.pages["/a.bin"] = Page(BODY, cuts=[1 << 20, *[0] * 20])
    with pytest.raises(SourceUnreachable) as given_up:
        await fetch(site.url("/a.bin"), tmp_path / "out")
    assert given_up.value.retriable
    assert names(tmp_path) == [".out.part"]
    asked = len(site.asked)
    site.pages["/a.bin"].cuts.clear()
    assert content((await fetch(site.url("/a.bin"), tmp_path / "out")).path) == {"a.bin": BODY}
    assert site.asked[asked + 1].headers["range"] == f"bytes={1 << 20}-"
    assert names(tmp_path) == ["out"]


async def test_a_server_that_ignores_ranges_is_read_from_the_start(site: Web, tmp_path: Path) -> None:
    """What is there already is skipped, not appended again."""
    site.pages["/a.bin"] = Page(BODY, cuts=[3 << 20, 4 << 20], ranges=False)
    assert content((await fetch(site.url("/a.bin"), tmp_path / "out")).path) == {"a.bin": BODY}


async def test_a_file_that_changes_on_the_way_is_never_mixed(site: Web, tmp_path: Path) -> None:
    """The new one comes from its first byte on, also when it has the same size."""
    page = site.pages["/a.bin"] = Page(BODY, hold=asyncio.Event())
    page.cuts = [3 << 20]
    fetching = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out"))
    await page.held.wait()
    other = os.urandom(len(BODY))
    site.pages["/a.bin"] = Page(other, '"2"')
    assert page.hold is not None
    page.hold.set()
    artifact = await fetching
    assert content(artifact.path) == {"a.bin": other}
    artifact_again = await fetch(site.url("/a.bin"), tmp_path / "again")
    assert artifact_again.revision == artifact.revision


async def test_one_that_always_changes_is_an_error(site: Web, tmp_path: Path) -> None:
    """Each look gives one ETag and each read another."""

    class Restless(Page):
        count = 0

        @property
        def etag(self) -> str:
            Restless.count += 1
            return f'"{Restless.count}"'

        @etag.setter
        def etag(self, value: str) -> None:
            pass

    site.pages["/a.bin"] = Restless(BODY)
    with pytest.raises(SourceChanged) as changed:
        await fetch(site.url("/a.bin"), tmp_path / "out")
    assert changed.value.retriable
    assert not (tmp_path / "out").exists()


async def test_a_lie_about_the_length_is_no_artefact(site: Web, tmp_path: Path) -> None:
    """More is promised than ever comes: an error. Less in one answer than in the look: the rest is asked for."""
    site.pages["/a.bin"] = Page(BODY, claimed=len(BODY) + 1000, ranges=False)
    with pytest.raises(SourceUnreachable):
        await fetch(site.url("/a.bin"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    site.pages["/b.bin"] = Page(BODY, claimed=len(BODY) - 1000)
    assert content((await fetch(site.url("/b.bin"), tmp_path / "out")).path) == {"b.bin": BODY}


async def test_an_end_that_cannot_be_told_from_a_cut_is_refused(site: Web, tmp_path: Path) -> None:
    """No length and no chunks: the body ends when the connection does. Chunks are good."""
    site.pages["/a.bin"] = Page(BODY, framing="close", ranges=False)
    with pytest.raises(SourceInvalid, match="a cut could not be noticed"):
        await fetch(site.url("/a.bin"), tmp_path / "out")
    site.pages["/b.bin"] = Page(BODY, framing="chunked", ranges=False, cuts=[1 << 20, 1 << 20])
    assert content((await fetch(site.url("/b.bin"), tmp_path / "out")).path) == {"b.bin": BODY}


async def test_without_a_validator_nothing_is_taken_up_or_kept(site: Web, tmp_path: Path) -> None:
    """No ETag, no date: a cut file begins anew, and the next call fetches again; the revision tells the content."""
    site.pages["/a.bin"] = Page(BODY, None, cuts=[1 << 20])
    first = await fetch(site.url("/a.bin"), tmp_path / "out")
    assert all("range" not in one.headers or one.headers["range"] == "bytes=0-0" for one in site.asked)
    site.pages["/a.bin"] = Page(BODY[::-1], None)
    second = await fetch(site.url("/a.bin"), tmp_path / "out")
    assert content(second.path) == {"a.bin": BODY[::-1]}
    assert first.revision != second.revision


async def test_without_a_validator_a_part_is_of_no_use(site: Web, tmp_path: Path) -> None:
    """Not even where its file is whole: it may be another one by now."""

    def fail(progress: Progress) -> None:
        if progress.done_files:
            raise ZeroDivisionError

    site.pages["/a.bin"] = Page(BODY, None)
    with pytest.raises(ZeroDivisionError):
        await fetch(site.url("/a.bin"), tmp_path / "out", on_progress=fail)
    site.pages["/a.bin"] = Page(BODY[::-1], None)
    assert content((await fetch(site.url("/a.bin"), tmp_path / "out")).path) == {"a.bin": BODY[::-1]}


async def test_the_query_is_part_of_what_is_asked_for(site: Web, tmp_path: Path) -> None:
    """Two queries with one ETag are two sources."""
    site.pages["/get"] = Page(b"one")
    await fetch(site.url("/get?file=1"), tmp_path / "out")
    site.pages["/get"] = Page(b"two")
    assert content((await fetch(site.url("/get?file=2"), tmp_path / "out")).path) == {"get": b"two"}


async def test_a_file_of_no_bytes(site: Web, tmp_path: Path) -> None:
    """A range of it cannot be had: that is no error."""
    site.pages["/none.bin"] = Page(b"")
    assert content((await fetch(site.url("/none.bin"), tmp_path / "out")).path) == {"none.bin": b""}


async def test_a_long_file_is_asked_for_in_spans(site: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single answer is larger than content networks give."""
    monkeypatch.setattr(http, "SPAN", 2 << 20)
    site.pages["/a.bin"] = Page(BODY)
    assert content((await fetch(site.url("/a.bin"), tmp_path / "out")).path) == {"a.bin": BODY}
    spans = [one.headers.get("range") for one in site.asked[1:]]
    assert spans == ["bytes=0-2097151", "bytes=2097152-4194303", "bytes=4194304-"]


SECRETS = Credentials(headers={"Authorization": "Bearer t", "X-Token": "u"})


async def test_headers_go_to_the_host_they_are_for_and_no_other(site: Web, tmp_path: Path) -> None:
    """A redirect within the host keeps them; one to another host or port loses them, also on the way back."""
    site.pages["/a.bin"] = Page(status=302, location="/b.bin")
    site.pages["/b.bin"] = Page(BODY)
    await fetch(site.url("/a.bin"), tmp_path / "one", SECRETS)
    assert {one.headers.get("authorization") for one in site.asked} == {"Bearer t"}
    async with web() as other:
        site.pages["/a.bin"].location = other.url("/there")
        other.pages["/there"] = Page(status=307, location=site.url("/b.bin"))
        site.asked.clear()
        await fetch(site.url("/a.bin"), tmp_path / "two", SECRETS)
        assert all("authorization" not in one.headers and "x-token" not in one.headers for one in other.asked)
        assert {one.path: one.headers.get("x-token") for one in site.asked} == {"/a.bin": "u", "/b.bin": None}
        site.pages["/b.bin"] = Page(status=403)
        with pytest.raises(AccessDenied, match="to which credentials are not sent"):
            await fetch(site.url("/a.bin"), tmp_path / "three", SECRETS)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "gopher://x/", ""])
async def test_a_redirect_elsewhere_than_the_web_is_refused(location: str, site: Web, tmp_path: Path) -> None:
    """Neither files nor other protocols are reached through one."""
    site.pages["/a.bin"] = Page(status=302, location=location)
    with pytest.raises(SourceInvalid):
        await fetch(site.url("/a.bin"), tmp_path / "out")


def test_no_redirect_leads_out_of_encryption() -> None:
    """Into it is fine; a user that the location names is not taken over."""
    secure = httpx2.Response(
        302, headers={"location": "http://host/a"}, request=httpx2.Request("GET", "https://host/a")
    )
    with pytest.raises(SourceInvalid, match="http://, which is refused"):
        http._location("x", secure)
    plain = httpx2.Response(
        302, headers={"location": "https://u:p@host/a"}, request=httpx2.Request("GET", "http://host/a")
    )
    assert http._location("x", plain) == "https://host/a"


async def test_redirects_in_a_circle_end(site: Web, tmp_path: Path) -> None:
    site.pages["/a.bin"] = Page(status=302, location="/a.bin")
    with pytest.raises(SourceInvalid, match="more than 10 times"):
        await fetch(site.url("/a.bin"), tmp_path / "out")


FINAL: dict[int, type[DownloadError]] = {
    400: SourceInvalid,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    410: NotFound,
}
PASSING = dict.fromkeys((408, 429, 500, 503), SourceUnreachable)


@pytest.mark.parametrize(("status", "error"), [*FINAL.items(), *PASSING.items()])
async def test_what_a_status_means(status: int, error: type[DownloadError], site: Web, tmp_path: Path) -> None:
    """A wrong key or URL fails at once; a server in trouble may be tried again."""
    site.pages["/a.bin"] = Page(status=status)
    with pytest.raises(error) as refused:
        await fetch(site.url("/a.bin?sig=SECRET"), tmp_path / "out")
    assert refused.value.retriable == (error is SourceUnreachable)
    assert "SECRET" not in str(refused.value)
    assert names(tmp_path) == []


async def test_nobody_listens(tmp_path: Path) -> None:
    """Retriable; said without the query."""
    with pytest.raises(SourceUnreachable, match=r"http://127.0.0.1:1/a: "):
        await fetch("http://127.0.0.1:1/a?SECRET", tmp_path / "out")


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "a%00b", "a%5cb", ".bashrc", "%2e%2e"])
async def test_a_name_that_could_lead_elsewhere_is_refused(name: str, site: Web, tmp_path: Path) -> None:
    """The name comes from the URL, decoded once."""
    site.pages[f"/x/{name}"] = Page(b"x")
    with pytest.raises(SourceInvalid):
        await fetch(site.url(f"/x/{name}"), tmp_path / "out")
    assert names(tmp_path) == []


async def test_cancelled_in_the_middle_nothing_is_left(site: Web, tmp_path: Path) -> None:
    """Neither target nor part nor lock; with ``keep_part`` what came is the start of the next try."""
    page = site.pages["/a.bin"] = Page(BODY, hold=asyncio.Event())
    for keep in (False, True):
        page.held.clear()
        fetching = asyncio.create_task(fetch(site.url("/a.bin"), tmp_path / "out", keep_part=keep))
        await page.held.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert names(tmp_path) == ([".out.part"] if keep else [])
    page.hold = None
    assert content((await fetch(site.url("/a.bin"), tmp_path / "out")).path) == {"a.bin": BODY}
