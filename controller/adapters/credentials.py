"""Named sets of credentials: from the environment, or from a file that only its owner can read. No value is shown."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from controller.config.resolve import CREDENTIALS


class CredentialsUnusable(Exception):
    """There are none of that name, or they cannot be read."""


def variable_of(name: str) -> str:
    return CREDENTIALS + "".join(letter if letter.isalnum() else "_" for letter in name).upper()


class Credentials:
    """``variables``: those of the environment that hold such sets. Everything here blocks."""

    def __init__(self, file: Path, variables: Mapping[str, str]) -> None:
        self._file = file
        self._variables = variables

    def read(self, name: str) -> Mapping[str, str]:
        """The environment wins over the file. Raises ``CredentialsUnusable``."""
        variable = variable_of(name)
        if variable in self._variables:
            return _as_set(_parsed(self._variables[variable], variable), variable)
        kept = self._kept()
        if name not in kept:
            raise CredentialsUnusable(
                f"there are no credentials called {name!r}, neither in {self._file} nor in {variable}"
            )
        return _as_set(kept[name], f"{self._file}: {name}")

    def keep(self, name: str, values: Mapping[str, str]) -> None:
        """Write one set into the file, the others stay. Raises ``CredentialsUnusable``."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.with_name(f".{self._file.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._write({**self._kept(), name: dict(values)})
        except OSError as broken:
            raise CredentialsUnusable(f"{self._file} cannot be written: {broken.strerror}") from broken

    def _write(self, kept: Mapping[str, object]) -> None:
        handle, path = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}.")  # 0600 from the start
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(kept, stream, indent=2)
                stream.flush()
                os.fsync(stream.fileno())
            Path(path).replace(self._file)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise

    def _kept(self) -> Mapping[str, object]:
        try:
            with self._file.open(encoding="utf-8") as stream:
                if os.fstat(stream.fileno()).st_mode & 0o077:
                    raise CredentialsUnusable(f"{self._file} can be read by others: chmod 600 {self._file}")
                text = stream.read()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as broken:
            raise CredentialsUnusable(f"{self._file} cannot be read") from broken
        kept = _parsed(text, str(self._file))
        if not isinstance(kept, dict):
            raise CredentialsUnusable(f"{self._file} must be a JSON object: name -> credentials")
        return kept


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CredentialsUnusable(f"{where} is not valid JSON") from None


def _as_set(values: object, where: str) -> Mapping[str, str]:
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise CredentialsUnusable(f"{where} must be a JSON object of texts")
    return values
