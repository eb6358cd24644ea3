"""The kinds of sources, opened. The hub's library takes a tenth of a second to load: it is, when a hub is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from runtime.downloads.credentials import Credentials
from runtime.downloads.http import open_client
from runtime.downloads.listing import Origin
from runtime.downloads.local import LocalOrigin
from runtime.downloads.source import HubSource, LocalSource, ObjectSource, Source, WebSource
from runtime.downloads.threads import in_thread
from runtime.downloads.web import WebOrigin


@asynccontextmanager
async def open_origin(source: Source, credentials: Credentials) -> AsyncIterator[Origin]:
    match source:
        case LocalSource():
            yield LocalOrigin(source)
        case ObjectSource():
            yield await in_thread(_object_origin, source, credentials)
        case WebSource() | HubSource():
            async with await in_thread(open_client) as client:
                if isinstance(source, HubSource):
                    yield await in_thread(_hub_origin, source, client, credentials)
                else:
                    yield WebOrigin(source, client, credentials.headers)


def _object_origin(source: ObjectSource, credentials: Credentials) -> Origin:
    from runtime.downloads.object_store import ObjectOrigin, stores

    return ObjectOrigin(source, stores(source, credentials))


def _hub_origin(source: HubSource, client: httpx2.AsyncClient, credentials: Credentials) -> Origin:
    from runtime.downloads.huggingface import HubOrigin

    return HubOrigin(source, client, credentials)
