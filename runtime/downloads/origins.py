"""The kinds of sources, opened. Their libraries are loaded when one is used: who fetches nothing needs none of them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import SourceInvalid
from runtime.downloads.listing import Origin
from runtime.downloads.local import LocalOrigin
from runtime.downloads.source import LocalSource, Source


def open_origin(source: Source, credentials: Credentials) -> AbstractAsyncContextManager[Origin]:
    if isinstance(source, LocalSource):
        return nullcontext(LocalOrigin(source))
    raise SourceInvalid("not supported yet")
