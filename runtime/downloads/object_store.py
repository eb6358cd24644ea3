"""Object stores: S3 and what speaks its language (OBS, TOS, MinIO, …), and Google's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import GCSStore, ObjectStore, S3Store

from runtime.downloads.aws_profile import read_profile
from runtime.downloads.credentials import Credentials
from runtime.downloads.errors import (
    AccessDenied,
    CredentialsInvalid,
    DownloadError,
    NotFound,
    SourceChanged,
    SourceInvalid,
    SourceUnreachable,
)
from runtime.downloads.listing import MAX_FILES, Listing, RemoteFile, checked, revision_of
from runtime.downloads.source import ObjectSource
from runtime.downloads.threads import in_thread

CHUNK = 256 << 10
RETRIES: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
_STATUS = re.compile(r"status code: (\d{3})")
ENDPOINTS = {"obs": "https://obs.{}.myhuaweicloud.com", "tos": "https://tos-s3-{}.volces.com"}
"""By region, for stores that are no part of AWS and are found through it only."""

MakeStore = Callable[[], ObjectStore]


class ObjectOrigin:
    """A key that names an object is that object; else it is a prefix. Where no keys are given, the bucket is asked
    without any first: public ones answer at once, and others cost one request before the default credentials are tried.
    """

    def __init__(self, source: ObjectSource, stores: Sequence[MakeStore]) -> None:
        self._source = source
        self._stores = stores
        self._store: ObjectStore | None = None

    async def listing(self) -> Listing:
        refused: DownloadError | None = None
        for make in self._stores:
            try:
                store = await in_thread(self._made, make)
                files = await in_thread(checked, await self._files(store))
                if make is not self._stores[-1]:
                    with self._translated():  # a bucket may show its names to all, and its objects to some
                        await obstore.head_async(store, files[0].place)
            except AccessDenied as error:
                refused = error
                continue
            except DownloadError as error:
                if refused is None:
                    raise
                raise AccessDenied(f"{refused}; default credentials: {error}") from error
            self._store = store
            return Listing(revision_of(files), files)
        raise refused or AccessDenied(self._source.shown)

    @asynccontextmanager
    async def read(self, file: RemoteFile, start: int) -> AsyncIterator[AsyncIterator[bytes]]:
        assert self._store is not None, "listed first"
        options: Any = {"if_match": file.etag} if file.etag else {}
        if start:
            options["range"] = {"offset": start}
        with self._translated():
            found = await obstore.get_async(self._store, file.place, options=options)
        if found.range[0] != start or found.meta["size"] != file.size:
            raise SourceChanged(f"{self._source.shown}: {file.name} is another object than before")
        yield self._chunks(found)

    async def _chunks(self, found: Any) -> AsyncIterator[bytes]:
        with self._translated():
            async for chunk in found.stream(min_chunk_size=CHUNK):
                yield chunk

    async def _files(self, store: ObjectStore) -> list[RemoteFile]:
        key, denied = self._source.key, None
        if key and not key.endswith("/"):
            try:
                with self._translated():
                    meta = await obstore.head_async(store, key)
                return [RemoteFile(key.rpartition("/")[2], meta["size"], meta["e_tag"], place=key)]
            except NotFound:
                pass
            except AccessDenied as error:
                denied = error  # some stores say so of what does not exist
        prefix = key.rstrip("/")
        files = []
        with self._translated():
            async for batch in obstore.list(store, prefix or None):
                for meta in batch:
                    name = meta["path"][len(prefix) :].lstrip("/")
                    files.append(RemoteFile(name, meta["size"], meta["e_tag"], place=meta["path"]))
                if len(files) > MAX_FILES:
                    raise SourceInvalid(f"{self._source.shown} holds more than {MAX_FILES} objects")
        if not files:
            raise denied or NotFound(f"{self._source.shown}: neither an object nor a prefix of any")
        return _without_folders(files)

    def _made(self, make: MakeStore) -> ObjectStore:
        try:
            return make()
        except (BaseError, ValueError) as wrong:
            raise CredentialsInvalid(f"{self._source.shown}: {_line(wrong)}") from wrong

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """obstore's errors in our words. Their first line is enough, and holds no secret."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(f"{self._source.shown} does not exist") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise AccessDenied(f"{self._source.shown}: access is denied") from error
        except PreconditionError as error:
            raise SourceChanged(f"{self._source.shown} changed while it was read") from error
        except InvalidPathError as error:
            raise SourceInvalid(f"{self._source.shown}: {_line(error)}") from error
        except BaseError as error:
            raise self._by_status(error) from error

    def _by_status(self, error: Exception) -> DownloadError:
        shown, line = self._source.shown, _line(error)
        found = _STATUS.search(line)
        status = int(found[1]) if found and "169.254.169.254" not in line else 0
        if status in (401, 403):
            return AccessDenied(f"{shown}: access is denied")
        if status == 404:
            return NotFound(f"{shown}: there is no such bucket")
        if status in (301, 307, 400):
            return SourceInvalid(f"{shown} answered {status}: is the region right, and the endpoint? {line}")
        return SourceUnreachable(f"{shown}: {line}")


def stores(source: ObjectSource, credentials: Credentials) -> list[MakeStore]:
    """What to try, in this order."""
    return _google(source, credentials) if source.scheme == "gs" else _s3(source, credentials)


def _google(source: ObjectSource, credentials: Credentials) -> list[MakeStore]:
    options: dict[str, Any] = {"retry_config": RETRIES, "client_options": _client(credentials.given.endpoint)}
    if credentials.given.endpoint:
        options["base_url"] = credentials.given.endpoint
    key = credentials.gcp_service_account_json
    if key:
        return [lambda: GCSStore(source.bucket, service_account_key=key, **options)]
    return [lambda: GCSStore(source.bucket, skip_signature=True, **options), lambda: GCSStore(source.bucket, **options)]


def _s3(source: ObjectSource, credentials: Credentials) -> list[MakeStore]:
    keys = credentials.keys(source.scheme)
    file = credentials.environment.aws_credentials_file
    if keys.access_key is None and source.scheme == "s3" and file is not None:
        profile = read_profile(file, credentials.environment.aws_profile)
        keys = replace(profile, endpoint=keys.endpoint, region=keys.region)
    endpoint = keys.endpoint
    if endpoint is None and source.scheme in ENDPOINTS:
        if keys.region is None:
            raise CredentialsInvalid(f"{source.shown}: {source.scheme}:// needs config: endpoint, or region")
        endpoint = ENDPOINTS[source.scheme].format(keys.region)
    options: dict[str, Any] = {"retry_config": RETRIES, "client_options": _client(endpoint)}
    if endpoint is not None:
        options["endpoint"] = endpoint = endpoint if "://" in endpoint else f"https://{endpoint}"
        if source.scheme in ENDPOINTS and _is_named(endpoint):
            options |= {"endpoint": _with_bucket(endpoint, source.bucket), "virtual_hosted_style_request": True}
    options["region"] = keys.region or "us-east-1"
    if keys.access_key:
        own: Any = {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.session_token,
            "expires_at": None,
        }  # handed over as one, else a session token of the environment would be mixed in
        return [lambda: S3Store(source.bucket, credential_provider=lambda: own, **options)]
    unsigned: MakeStore = lambda: S3Store(source.bucket, skip_signature=True, **options)  # noqa: E731
    return [unsigned] if source.scheme in ENDPOINTS else [unsigned, lambda: S3Store(source.bucket, **options)]


def _client(endpoint: str | None) -> Any:
    plain = endpoint is not None and endpoint.startswith("http://")
    return {"allow_http": plain, "connect_timeout": "10s", "read_timeout": "30s", "timeout": "24h"}


def _is_named(endpoint: str) -> bool:
    """By a name below which each bucket has its own; an address and this machine have none."""
    host = urlsplit(endpoint).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


def _with_bucket(endpoint: str, bucket: str) -> str:
    scheme, _, rest = endpoint.partition("://")
    return endpoint if rest.startswith(f"{bucket}.") else f"{scheme}://{bucket}.{rest}"


def _without_folders(files: list[RemoteFile]) -> list[RemoteFile]:
    """Consoles make empty objects to stand for folders."""
    folders = {"/".join(file.name.split("/")[:depth]) for file in files for depth in range(file.name.count("/") + 1)}
    return [file for file in files if file.name and not (file.size == 0 and file.name in folders)]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
