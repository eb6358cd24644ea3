"""Bytes over HTTP: ranges, validators and redirects, for the web and for the hub."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import httpx2

from runtime.downloads.errors import (
    AccessDenied,
    NotFound,
    SourceChanged,
    SourceInvalid,
    SourceUnreachable,
)
from runtime.downloads.listing import RemoteFile

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
MAX_REDIRECTS = 10
SPAN = 16 << 30
"""Asked for at once. Content networks answer no single request beyond some tens of gigabytes."""
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


def open_client() -> httpx2.AsyncClient:
    """Proxies come from the environment, as for every other program that downloads."""
    timeout = httpx2.Timeout(STALL_SECONDS, connect=CONNECT_SECONDS, pool=None)
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16)
    headers = {"user-agent": "torpor", "accept": "*/*", "accept-encoding": "identity"}
    return httpx2.AsyncClient(timeout=timeout, limits=limits, headers=headers, follow_redirects=False)


@contextmanager
def translated(shown: str) -> Iterator[None]:
    """httpx2's errors in our words."""
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as wrong:
        raise SourceInvalid(f"{shown}: {wrong}") from wrong
    except httpx2.HTTPError as broken:
        raise SourceUnreachable(f"{shown}: {str(broken) or type(broken).__name__}") from broken


def validator(response: httpx2.Response) -> str | None:
    """What is another when the content is: the ETag, else when it was last modified."""
    return response.headers.get("etag") or response.headers.get("last-modified")


def total_size(response: httpx2.Response) -> int | None:
    """Of the whole file, by an answer to a range request or to a plain one; None when it does not tell."""
    if response.status_code in (206, 416):
        found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        return int(found[2]) if found and found[2] != "*" else None
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() else None


@asynccontextmanager
async def get(
    client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], byte_range: str | None
) -> AsyncIterator[httpx2.Response]:
    """An answer of 200, 206 or 416, after redirects. ``headers`` are never sent to another origin than the first."""
    shown, own = _shown(url), dict(headers)
    ranged = {"range": f"bytes={byte_range}"} if byte_range else {}
    for _ in range(MAX_REDIRECTS):
        with translated(shown):
            request = client.build_request("GET", url, headers=own | ranged)
            response = await client.send(request, stream=True)
        try:
            if response.status_code not in _REDIRECTS:
                _raise_for_status(shown, response, bool(headers) and not own)
                yield response
                return
            following = _location(shown, response)
        finally:
            await response.aclose()
        if _origin(following) != _origin(url):
            own = {}
        url = following
    raise SourceInvalid(f"{shown} redirects more than {MAX_REDIRECTS} times")


@asynccontextmanager
async def read_range(
    client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], file: RemoteFile, start: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bytes of ``file`` from ``start`` on, whether or not the server knows ranges; perhaps not up to the end."""
    byte_range = f"{start}-" if start else None
    if file.size is not None and file.size - start > SPAN:
        byte_range = f"{start}-{start + SPAN - 1}"
    async with get(client, url, headers, byte_range) as response:
        if file.etag is not None and validator(response) != file.etag:
            raise SourceChanged(f"{_shown(url)} is another file than before")
        if response.status_code == 416:
            if total_size(response) not in (None, start):
                raise SourceChanged(f"{_shown(url)} has another length than before")
            yield _none()
            return
        if not _is_framed(response) and file.size is None:
            raise SourceInvalid(f"{_shown(url)}: the server tells no length, so that a cut could not be noticed")
        first = _first_byte(response)
        if first > start:
            raise SourceUnreachable(f"{_shown(url)}: the server sent another range than the one asked for")
        yield _chunks(_shown(url), response, start - first)


async def _chunks(shown: str, response: httpx2.Response, skip: int) -> AsyncIterator[bytes]:
    """As they were sent, without decoding: what the URL names is the encoded file."""
    with translated(shown):
        async for chunk in response.aiter_raw():
            if skip < len(chunk):
                yield chunk[skip:] if skip else chunk
            skip = max(0, skip - len(chunk))


async def _none() -> AsyncIterator[bytes]:
    return
    yield b""


def _first_byte(response: httpx2.Response) -> int:
    if response.status_code == 200:
        return 0
    found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
    if not found or found[1] is None:
        raise SourceUnreachable(f"{_shown(str(response.url))}: the server sent a range without saying which")
    return int(found[1])


def _is_framed(response: httpx2.Response) -> bool:
    return "content-length" in response.headers or "transfer-encoding" in response.headers


def _location(shown: str, response: httpx2.Response) -> str:
    try:
        target = response.url.join(response.headers["location"])
    except (KeyError, httpx2.InvalidURL):
        raise SourceInvalid(f"{shown} redirects to nowhere") from None
    if target.scheme not in ("http", "https") or (response.url.scheme == "https" and target.scheme == "http"):
        raise SourceInvalid(f"{shown} redirects to {target.scheme}://, which is refused")
    if not target.host:
        raise SourceInvalid(f"{shown} redirects to nowhere")
    return str(target.copy_with(username=None, password=None))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _shown(url: str) -> str:
    """Without the query, which may hold a signature."""
    return url.partition("?")[0]


def _raise_for_status(shown: str, response: httpx2.Response, dropped: bool) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in (401, 403):
        hint = "; it redirected to another host, to which credentials are not sent" if dropped else ""
        raise AccessDenied(f"{shown} answered {status}{hint}")
    if status in (404, 410):
        raise NotFound(f"{shown} answered {status}")
    if status in (408, 425, 429) or status >= 500:
        raise SourceUnreachable(f"{shown} answered {status}")
    raise SourceInvalid(f"{shown} answered {status}")
