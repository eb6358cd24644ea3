"""What can be downloaded: the text a user writes, read once. Pure: nothing is looked up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from runtime.downloads.errors import SourceInvalid

SCHEMES = "hf://, huggingface://, s3://, gs://, obs://, tos://, pvc://, file://, http:// and https://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.S)


@dataclass(frozen=True, slots=True)
class HubSource:
    """``revision``: a branch, tag or commit; None is the default branch."""

    repository: str
    revision: str | None = None

    @property
    def shown(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")

    @property
    def identity(self) -> str:
        return f"hf://{self.repository}"


@dataclass(frozen=True, slots=True)
class ObjectSource:
    """``scheme``: s3, gs, obs or tos. ``key``: of one object, or a prefix; only a prefix when it ends in ``/``."""

    scheme: str
    bucket: str
    key: str

    @property
    def shown(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        return self.shown


@dataclass(frozen=True, slots=True)
class WebSource:
    """``url`` may carry a signature in its query: it is never shown or stored."""

    url: str = field(repr=False)
    shown: str

    @property
    def identity(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class LocalSource:
    path: Path

    @property
    def shown(self) -> str:
        return self.path.as_posix()

    @property
    def identity(self) -> str:
        return self.shown


Source = HubSource | ObjectSource | WebSource | LocalSource


def parse(text: str) -> Source:
    """Raises ``SourceInvalid`` with what is wrong; the message never holds a URL's query or user."""
    if not text or text != text.strip() or not text.isprintable():
        raise SourceInvalid("the source is empty, or has spaces or control characters around or in it")
    if text.startswith("/"):
        return _local(text, text)
    found = _SCHEME.fullmatch(text)
    if not found:
        return _bare(text)
    scheme, rest = found[1].lower(), found[2]
    match scheme:
        case "hf" | "huggingface":
            return _hub(rest)
        case "s3" | "gs" | "gcs" | "obs" | "tos":
            return _object("gs" if scheme == "gcs" else scheme, rest)
        case "http" | "https":
            return _web(text)
        case "pvc":
            return _local("/" + rest.lstrip("/"), text)
        case "file":
            return _file(rest, text)
        case "ms" | "modelscope":
            raise SourceInvalid(f"{scheme}:// (ModelScope) is not supported; there are {SCHEMES}")
        case _:
            raise SourceInvalid(f"unknown scheme {scheme}://; there are {SCHEMES}, org/name and absolute paths")


def _bare(text: str) -> HubSource:
    repository = text.partition("@")[0]
    if repository.count("/") != 1 or not _REPOSITORY.fullmatch(repository):
        raise SourceInvalid(f"{_short(text)} is no org/name of a hub, no absolute path, and has none of {SCHEMES}")
    return _hub(text)


def _hub(rest: str) -> HubSource:
    repository, at, revision = rest.rstrip("/").partition("@")
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise SourceInvalid(f"hf://{_short(rest)}: write hf://org/name or hf://org/name@revision")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise SourceInvalid(f"hf://{_short(rest)}: what follows the @ is no branch, tag or commit")
    return HubSource(repository, revision or None)


def _object(scheme: str, rest: str) -> ObjectSource:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise SourceInvalid(f"{scheme}://{_short(rest)}: write {scheme}://bucket/key or {scheme}://bucket/prefix/")
    if {"", ".", ".."} & {*key.removesuffix("/").split("/")} and key:
        raise SourceInvalid(f"{scheme}://{_short(rest)}: empty parts, . and .. are not taken in keys")
    return ObjectSource(scheme, bucket, key)


def _web(text: str) -> WebSource:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SourceInvalid("the URL cannot be read") from None
    if not host or " " in text:
        raise SourceInvalid("the URL has no host, or a space in it")
    if parts.username is not None or parts.password is not None:
        raise SourceInvalid("the URL holds a user or password; put them into config: headers")
    shown = f"{parts.scheme.lower()}://{host}{f':{port}' if port else ''}{parts.path or '/'}"
    return WebSource(text.partition("#")[0], shown)


def _file(rest: str, text: str) -> LocalSource:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise SourceInvalid(f"{_short(text)}: write file:///absolute/path")
    return _local(unquote(slash + path), text)


def _local(path: str, text: str) -> LocalSource:
    if "\0" in path or ".." in path.split("/") or not path.strip("/"):
        raise SourceInvalid(f"{_short(text)}: not a path to one folder or file, without ..")
    return LocalSource(Path(path))


def _short(text: str) -> str:
    shown = text.partition("?")[0]
    return shown if len(shown) <= 120 else shown[:120] + "…"
