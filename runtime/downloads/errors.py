"""Why a download did not come about. ``retriable``: whether the same call may succeed later with nothing changed.

DownloadError
├── SourceInvalid        not a source we know, or one that holds what we refuse
├── CredentialsInvalid   the configuration has an unknown key, or keys that do not go together
├── NotFound             nothing is there
├── AccessDenied         401 or 403: credentials are missing, wrong, or not enough
├── SourceUnreachable    nobody answers, the connection is cut again and again, a server error     (retriable)
├── SourceChanged        it changes each time while being read                                     (retriable)
├── ChecksumMismatch     what came is not what was promised                                        (retriable)
├── ArchiveInvalid       an archive that is broken, or would write elsewhere, or more than it may
├── NoSpace              the disk is too full
└── TargetUnusable       what is at the target is not ours, or it cannot be written
"""

from __future__ import annotations

from typing import ClassVar


class DownloadError(Exception):
    retriable: ClassVar[bool] = False


class SourceInvalid(DownloadError):
    pass


class CredentialsInvalid(DownloadError):
    pass


class NotFound(DownloadError):
    pass


class AccessDenied(DownloadError):
    pass


class SourceUnreachable(DownloadError):
    retriable = True


class SourceChanged(DownloadError):
    retriable = True


class ChecksumMismatch(DownloadError):
    retriable = True


class ArchiveInvalid(DownloadError):
    pass


class NoSpace(DownloadError):
    pass


class TargetUnusable(DownloadError):
    pass
