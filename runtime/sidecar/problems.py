"""What can go wrong with a request to the sidecar, and its HTTP status.

Problem
├── BadRequest     400
├── NotFound       404
└── Conflict       409
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from runtime.adapters import UnfitAdapter
from runtime.downloads import errors as downloads
from runtime.engines import base as engines

log = logging.getLogger(__name__)


class Problem(Exception):
    status: ClassVar[int] = 500


class BadRequest(Problem):
    status = 400


class NotFound(Problem):
    status = 404


class Conflict(Problem):
    status = 409


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client is told of it. ``type``: a word for programs. ``retriable``: it may pass by itself."""

    status: int
    type: str
    message: str
    retriable: bool = False


_DOWNLOADS: Mapping[type[downloads.DownloadError], int] = {
    downloads.SourceInvalid: 400,
    downloads.CredentialsInvalid: 400,
    downloads.NotFound: 404,
    downloads.AccessDenied: 403,
    downloads.SourceUnreachable: 502,
    downloads.SourceChanged: 502,
    downloads.ChecksumMismatch: 502,
    downloads.ArchiveInvalid: 422,
    downloads.NoSpace: 507,
    downloads.TargetUnusable: 409,
}

EXPECTED = (Problem, engines.EngineError, downloads.DownloadError, UnfitAdapter)


def failure_of(error: Exception) -> Failure:
    """An engine's refusal keeps its status and its text. What nobody expected says nothing of itself."""
    kind = type(error).__name__
    if isinstance(error, Problem):
        return Failure(error.status, kind, str(error))
    if isinstance(error, UnfitAdapter):
        return Failure(400, kind, str(error))
    if isinstance(error, engines.EngineRefused):
        return Failure(error.status, kind, f"HTTP {error.status}: {error.text}", retriable=error.status >= 500)
    if isinstance(error, engines.EngineTimeout):
        return Failure(504, kind, str(error), retriable=True)
    if isinstance(error, engines.EngineUnreachable):
        return Failure(502, kind, str(error), retriable=True)
    if isinstance(error, engines.NotSupported):
        return Failure(501, kind, str(error))
    if isinstance(error, downloads.DownloadError):
        return Failure(_DOWNLOADS[type(error)], kind, f"Download failed: {error}", retriable=error.retriable)
    return Failure(500, "Internal", "The sidecar has a bug; its log has the traceback.")


def unexpected(error: Exception) -> None:
    """Log the traceback of what nobody foresaw."""
    if not isinstance(error, EXPECTED):
        log.error("a request failed", exc_info=error)
