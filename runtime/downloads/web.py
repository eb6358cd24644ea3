"""One file from an ``http://`` or ``https://`` URL."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import httpx2

from runtime.downloads.errors import SourceInvalid
from runtime.downloads.http import get, read_range, total_size, validator
from runtime.downloads.listing import Listing, RemoteFile, checked, revision_of
from runtime.downloads.source import WebSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UNNAMED = "download"


class WebOrigin:
    """``headers`` are sent to the URL's own host only."""

    def __init__(self, source: WebSource, client: httpx2.AsyncClient, headers: Mapping[str, str]) -> None:
        self._source = source
        self._client = client
        self._headers = headers

    async def listing(self) -> Listing:
        """Asks for one byte, as a signed URL may allow no HEAD, and many servers answer one wrongly."""
        async with get(self._client, self._source.url, self._headers, "0-0") as response:
            file = RemoteFile(self._name(), total_size(response), validator(response))
        files = checked([file])
        return Listing(revision_of(files), files)

    def read(self, file: RemoteFile, start: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return read_range(self._client, self._source.url, self._headers, file, start)

    def _name(self) -> str:
        """The URL's last part: what a server suggests in a header is not asked for."""
        name = unquote(urlsplit(self._source.url).path.rpartition("/")[2])
        if name.startswith("."):
            raise SourceInvalid(f"{self._source.shown}: the file would be hidden")
        return name or UNNAMED
