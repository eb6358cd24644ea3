"""Load one YAML file: every mistake in it at once, or a frozen ``Config``.

The only reader of YAML, and with ``runtime.settings`` of environment variables.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.config.checks import check
from controller.config.document import Document, read
from controller.config.explain import explain, nearest
from controller.config.mistakes import ConfigError, KeyPath, Mistake, key_of
from controller.config.model import Config
from controller.config.resolve import resolve
from controller.config.schema import ConfigFile

MAX_BYTES = 1 << 20
ROUNDS = 8
"""Taking the broken parts out can uncover more of them; deeper than this no file nests."""

NOTES = "x-"
"""Keys at the top that begin so are the user's own: a place for what anchors refer to."""

_ORIGIN = ("engine", "url", "command")
_SLEEP = (*_ORIGIN, "engine_args", "args", "env", "engine_env", "kvcached_env", "sleep_flags")
DEPENDS: Mapping[str, tuple[str, ...]] = {"engine": _ORIGIN, "sleep_manager": _SLEEP, "": _SLEEP}
"""A finding about the first key of an instance would say nothing new when one of the others is broken."""


def load(file: Path | str, environment: Mapping[str, str] | None = None) -> Config:
    """Read ``file``. Raises ``ConfigError`` with all that is wrong. ``environment`` is the process's own by default."""
    environment = os.environ if environment is None else environment
    path = Path(file).absolute()
    text = text_of(path)
    document = read(text, environment)
    if document.values is None and not document.mistakes:
        document.mistakes.append(Mistake(1, "", "the file is empty", "start from example-config.yaml"))
    if document.values is None:
        raise ConfigError(path, document.mistakes)
    written = _validate(document)
    if written is not None:
        _cross_check(written, document, path.parent, environment)
    if document.mistakes or written is None:
        raise ConfigError(path, document.mistakes)
    return resolve(path, hashlib.sha256(text.encode()).hexdigest()[:12], written, environment)


def text_of(path: Path, hint: str = "give one with --config PATH") -> str:
    """A file's text. Raises ``ConfigError``; ``hint``: what to do when there is none."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(path, [Mistake(1, "", "no such file", hint)]) from None
    except OSError as unreadable:
        raise ConfigError(path, [Mistake(1, "", f"cannot be read: {unreadable.strerror}")]) from None
    except ValueError as impossible:
        raise ConfigError(path, [Mistake(1, "", f"cannot be read: {impossible}")]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(path, [Mistake(1, "", f"is larger than {MAX_BYTES >> 20} MiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        line = content.count(b"\n", 0, broken.start) + 1
        raise ConfigError(path, [Mistake(line, "", "is not UTF-8 text")]) from None


def _validate(document: Document) -> ConfigFile | None:
    """Validate; after a failure take the broken parts out and go on, so that later checks still see the rest."""
    if not isinstance(document.values, dict):
        problem = "must be a mapping (key: value) with instances: in it"
        document.mistakes.append(Mistake(1, "", problem, "start from example-config.yaml"))
        return None
    values = copy.deepcopy({key: value for key, value in document.values.items() if not key.startswith(NOTES)})
    for _ in range(ROUNDS):
        try:
            return ConfigFile.model_validate(values)
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
        _tell(errors, document)
        for error in reversed(errors):
            _take_out(values, error)
    return None


def _tell(errors: list[ErrorDetails], document: Document) -> None:
    meant = [nearest(error["loc"]) for error in errors if error["type"] == "extra_forbidden"]
    document.settled |= {key_of(path) for path in meant if path is not None}
    for error in errors:
        for path, problem, fix in explain(error):
            if key_of(path) not in document.settled:
                document.add(path, problem, fix)


def _take_out(values: Any, error: ErrorDetails) -> None:
    """Remove what ``error`` is about, or put something harmless there."""
    *path, last = error["loc"]
    if error["loc"][:1] == ("adapters",) and len(error["loc"]) > 1:
        values["adapters"][error["loc"][1]] = _harmless_adapter(f"broken-{error['loc'][1]}")
        return
    holder: Any = values
    for part in path:
        if isinstance(holder, dict) and part not in holder:
            return  # went with an error before
        holder = holder[part]
    if last == "instances" and not path:
        holder[last] = [_harmless("missing")]
    elif path == ["instances"]:
        holder[last] = _harmless(f"broken-{last}")
    elif error["type"] == "missing":
        holder[last] = f"missing-{'-'.join(map(str, path))}"
    elif isinstance(holder, dict):
        holder.pop(last, None)
    else:
        del holder[last]


def _harmless(name: str) -> dict[str, str]:
    return {"model": name, "url": f"http://{name}.invalid"}


def _harmless_adapter(name: str) -> dict[str, str]:
    return {"name": name, "baseModel": name, "artifactURL": "/broken"}


def _cross_check(written: ConfigFile, document: Document, folder: Path, environment: Mapping[str, str]) -> None:
    settled = frozenset(document.settled)
    for path, problem, fix in check(written, folder, environment):
        if key_of(path) not in settled and not _follows(path, settled):
            document.add(path, problem, fix)


def _follows(path: KeyPath, told: Collection[str]) -> bool:
    """Whether what was told of this instance, or adapter, explains the finding at ``path``."""
    if path[:1] == ("adapters",):
        return any(one.startswith(key_of(path[:2])) for one in told)
    if path[:1] != ("instances",):
        return False
    key = str(path[2]) if len(path) > 2 else ""
    origins = [key_of((*path[:2], origin)) for origin in DEPENDS.get(key, ())]
    return any(one == origin or one.startswith((f"{origin}[", f"{origin}.")) for one in told for origin in origins)
