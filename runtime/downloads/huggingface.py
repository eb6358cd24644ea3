"""A repository of a hub. What it holds, its commit and who may read it are huggingface_hub's to find out; the bytes
come over our own HTTP, as the library (2.x) keeps nothing of a file whose download was killed, and cannot be cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import AccessDenied, DownloadError, NotFound, SourceInvalid, SourceUnreachable
from runtime.downloads.http import read_range
from runtime.downloads.listing import Listing, RemoteFile, checked
from runtime.downloads.source import HubSource
from runtime.downloads.threads import in_thread

T = TypeVar("T")
SECONDS = 30.0
DEADLINE_SECONDS = 120.0
"""For one question, with the library's own attempts."""


class HubOrigin:
    def __init__(self, source: HubSource, client: httpx2.AsyncClient, credentials: Credentials) -> None:
        self._source = source
        self._client = client
        self._token = credentials.hf_token
        self._endpoint = credentials.hf_endpoint
        self._revision = source.revision or credentials.hf_revision
        if self._endpoint is None and self._token is None:
            self._token = get_token()  # of `hf auth login`, for the hub itself
        self._api = HfApi(endpoint=self._endpoint, token=self._token or False, library_name="torpor")

    async def listing(self) -> Listing:
        """The revision is the commit that the branch or tag stands for now."""
        name = self._source.repository
        about = await self._ask(lambda: self._api.model_info(name, revision=self._revision, timeout=SECONDS))
        commit = about.sha
        if not commit:
            raise SourceUnreachable(f"{self._source.shown}: the hub names no commit")
        tree = await self._ask(lambda: list(self._api.list_repo_tree(name, recursive=True, revision=commit)))
        files = [self._file(entry, commit) for entry in tree if isinstance(entry, RepoFile)]
        return Listing(commit, await in_thread(checked, files))

    def read(self, file: RemoteFile, start: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        return read_range(self._client, file.place, headers, file, start)

    def _file(self, entry: RepoFile, commit: str) -> RemoteFile:
        """The hub's own names for content are digests: of the file where it is large, else of git's blob."""
        digest = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
        place = hf_hub_url(self._source.repository, entry.path, revision=commit, endpoint=self._endpoint)
        return RemoteFile(entry.path, entry.size, digest=digest, place=place)

    async def _ask(self, call: Callable[[], T]) -> T:
        """In a thread that may be left behind: it writes nothing."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await asyncio.to_thread(call)
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
            raise self._error(error) from error

    def _error(self, error: Any) -> DownloadError:
        shown = self._source.shown
        if isinstance(error, GatedRepoError):
            return AccessDenied(f"{shown} is gated: accept its conditions on its page, and give an hf_token")
        if isinstance(error, RepositoryNotFoundError):
            return NotFound(f"{shown} does not exist, or is private and the hf_token is missing or wrong")
        if isinstance(error, RevisionNotFoundError):
            return NotFound(f"{shown}: there is no revision {self._revision}")
        if isinstance(error, HFValidationError):
            return SourceInvalid(f"{shown}: {error}")
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if status in (401, 403):
            return AccessDenied(f"{shown}: the hub answered {status}: the hf_token is wrong, or may not read this")
        if status == 404:
            return NotFound(f"{shown} does not exist")
        return SourceUnreachable(f"{shown}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
