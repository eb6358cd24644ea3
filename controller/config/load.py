"""Load one YAML file: every mistake in it at once, or a frozen ``Config``.

The only reader of YAML, and with ``runtime.settings`` of environment variables.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controller.config.checks import check
from controller.config.document import Document, read
from controller.config.mistakes import ConfigError, KeyPath, Mistake, key_of
from controller.config.model import Config
from controller.config.resolve import resolve
from controller.config.schema import (
    ConfigFile,
    InstanceSection,
    LaunchSection,
    RouterSection,
    SleepSection,
    StateSection,
)

MAX_BYTES = 4 << 20
ROUNDS = 8
"""Taking the broken parts out can uncover more of them; deeper than this no file nests."""

SECTIONS: Mapping[str, type[BaseModel]] = {
    "router": RouterSection,
    "sleep_manager": SleepSection,
    "launch": LaunchSection,
    "state": StateSection,
    "instances": InstanceSection,
}


def load(file: Path | str, environment: Mapping[str, str] | None = None) -> Config:
    """Read ``file``. Raises ``ConfigError`` with all that is wrong. ``environment`` is the process's own by default."""
    environment = os.environ if environment is None else environment
    path = Path(file).absolute()
    text = _text(path)
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


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()[: MAX_BYTES + 1]
    except FileNotFoundError:
        raise ConfigError(path, [Mistake(1, "", "no such file", "give one with --config PATH")]) from None
    except OSError as unreadable:
        raise ConfigError(path, [Mistake(1, "", f"cannot be read: {unreadable.strerror}")]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(path, [Mistake(1, "", f"is larger than {MAX_BYTES >> 20} MiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        line = content.count(b"\n", 0, broken.start) + 1
        raise ConfigError(path, [Mistake(line, "", "is not UTF-8 text")]) from None


def _validate(document: Document) -> ConfigFile | None:
    """Validate; after a failure take the broken parts out and go on, so that later checks still see the rest."""
    values = copy.deepcopy(document.values)
    for _ in range(ROUNDS):
        try:
            return ConfigFile.model_validate(values)
        except ValidationError as invalid:
            errors = invalid.errors(include_url=False)
        for error in errors:
            document.mistakes.append(_mistake(error, document))
        if not all(_take_out(values, error) for error in reversed(errors)):
            return None
    return None


def _take_out(values: Any, error: ErrorDetails) -> bool:
    """Remove what ``error`` is about, or put something harmless there. False if nothing would be left."""
    *path, last = error["loc"] or (None,)
    if last is None or (not path and last == "instances"):
        return False
    holder = values
    for part in path:
        if isinstance(holder, dict) and isinstance(part, str) and part not in holder:
            return True  # went with an error before
        holder = holder[part]
    if error["type"] == "missing":
        holder[last] = f"missing-{'-'.join(map(str, path))}"
    elif isinstance(holder, list) and isinstance(last, int):
        name = f"broken-{last}"
        holder[last] = {"model": name, "url": f"http://{name}.invalid"} if path == ["instances"] else name
    elif isinstance(holder, dict):
        holder.pop(last, None)
    return True


def _cross_check(written: ConfigFile, document: Document, folder: Path, environment: Mapping[str, str]) -> None:
    told = {mistake.key for mistake in document.mistakes}
    for path, problem, fix in check(written, folder, environment):
        key = key_of(path)
        if key not in told:
            document.mistakes.append(Mistake(document.line(path), key, problem, fix))


def _mistake(error: ErrorDetails, document: Document) -> Mistake:
    path: KeyPath = tuple(error["loc"])
    problem, fix = _explain(error)
    return Mistake(document.line(path), key_of(path), problem, fix)


def _explain(error: ErrorDetails) -> tuple[str, str]:
    kind, given, limits = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return "is missing", _REQUIRED.get(str(error["loc"][-1]), "add it")
    if kind == "extra_forbidden":
        return "unknown key", _nearest(str(error["loc"][-1]), _known_keys(error["loc"][:-1]))
    if kind == "value_error":
        return error["msg"].removeprefix("Value error, "), ""
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {_shown(given)}", ""
    if kind == "string_pattern_mismatch":
        return f"{given!r} has the wrong form", f"it must match {limits['pattern']}"
    bounds = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "more than {gt}",
        "less_than_equal": "at most {le}",
    }
    if kind in bounds:
        return f"must be {bounds[kind].format(**limits)}, not {given}", ""
    if kind == "too_short":
        return "is empty", "add at least one"
    return error["msg"], ""


_REQUIRED = {
    "model": "write the model's name, such as meta-llama/Llama-3.2-1B",
    "instances": "list at least one engine under instances:",
}
_TYPES = {
    "bool_type": "true or false",
    "int_type": "a whole number without quotes",
    "float_type": "a number without quotes",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "finite_number": "a finite number",
}


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _known_keys(path: Iterable[str | int]) -> list[str]:
    section: type[BaseModel] = ConfigFile
    for part in path:
        if isinstance(part, str):
            section = SECTIONS.get(part, section)
    return list(section.model_fields)


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"the known ones are {', '.join(known)}"
