"""Credentials by reference: a folder of files, as Kubernetes mounts a secret; a file for each key."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

from runtime.sidecar.problems import BadRequest, NotFound

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
LARGEST_VALUE = 64 << 10  # bytes


class CredentialSets:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, name: str) -> Mapping[str, str]:
        """Raises ``BadRequest``, ``NotFound``; no message shows a value."""
        if not NAME.match(name):
            raise BadRequest("credentials_secret is not a name of letters, digits, dots, dashes and underscores")
        return await asyncio.to_thread(self._read, self._folder / name)

    def _read(self, folder: Path) -> Mapping[str, str]:
        try:
            files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".") and file.is_file()]
            if any(file.stat().st_size > LARGEST_VALUE for file in files):
                raise BadRequest(f"credentials_secret {folder.name!r} has a value above {LARGEST_VALUE} bytes")
            return {file.name: file.read_text(encoding="utf-8").strip() for file in files}
        except FileNotFoundError:
            raise NotFound(f"there are no credentials {folder.name!r} in {folder.parent}") from None
        except (OSError, UnicodeDecodeError):
            raise BadRequest(f"credentials_secret {folder.name!r} cannot be read") from None
