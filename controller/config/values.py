"""The forms in which a value may be written, and the plain value each of them means."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from runtime.engines.kinds import KINDS, SYNONYMS

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?|\*")
WRONG_ITEMS = "wrong_items"

Wrong = tuple[str | int, str]
"""The key or index of an item, and what is wrong with it."""


def words(value: Any) -> tuple[str, ...]:
    """Engine arguments: text is split as a shell would, a list item by item; a list within is taken word for word."""
    if value is None:
        return ()
    if isinstance(value, str):
        return _split(value)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of arguments or one line of text")
    found: list[str] = []
    wrong: list[Wrong] = []
    for index, item in enumerate(value):
        try:
            found += [_scalar(word) for word in item] if isinstance(item, list) else _split(_scalar(item))
        except ValueError as bad:
            wrong.append((index, str(bad)))
    _raise(wrong)
    return tuple(found)


def variables(value: Any) -> dict[str, str]:
    """Environment variables: a list of ``KEY=VALUE`` (kvcached's form) or a mapping."""
    if value is None:
        return {}
    if isinstance(value, list):
        return _collect(enumerate(value), _assignment)
    if not isinstance(value, dict):
        raise ValueError("must be a list of KEY=VALUE or a mapping")
    return _collect(value.items(), lambda name, content: (_name(name), _content(content)))


def global_variables(value: Any) -> dict[str, str]:
    """kvcached's own section: any mapping, its keys in upper case, its values as Python writes them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of settings")
    return _collect(value.items(), lambda name, content: (_name(name).upper(), _passable(str(content))))


def labels(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError("must be a mapping (key: value)")
    return _collect(value.items(), lambda name, content: (str(name), _content(content)))


def engine(value: Any) -> str:
    if isinstance(value, str):
        kind = SYNONYMS.get(value.lower(), value.lower())
        if kind in KINDS:
            return kind
    raise ValueError(f"unknown engine {value!r}; the known ones are {', '.join([*KINDS, *SYNONYMS])}")


def variable_name(value: str) -> str:
    """The value is not shown: it may be the key itself, written where its variable's name belongs."""
    if not ENV_NAME.fullmatch(value):
        raise ValueError("must be the name of an environment variable that holds the key, not the key")
    return value


def host(value: str) -> str:
    if not HOST.fullmatch(value):
        raise ValueError(f"{value!r} is no host; write a name or an address, without scheme and port")
    return value.strip("[]")


def url(value: str) -> str:
    """The address of a server, without path. It is not shown when wrong: it may hold a password."""
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        known = bare = False
    if not known or "@" in parts.netloc or not HOST.fullmatch(parts.hostname or ""):
        raise ValueError("must be an address such as http://10.0.0.5:8000")
    if not bare:
        raise ValueError("must end after the port; leave the path away (the router adds /v1/… itself)")
    return value.rstrip("/?#")


def state_url(value: str) -> str:
    if not re.match(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?://", value):
        raise ValueError("must be a database address such as sqlite:///state.db")
    return value


def none_is_empty(value: Any) -> Any:
    return {} if value is None else value


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else () if value is None else value


def _collect(items: Iterable[tuple[Any, Any]], read: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    wrong: list[Wrong] = []
    for key, item in items:
        try:
            name, content = read(key, item)
            found[name] = content
        except ValueError as bad:
            wrong.append((key, str(bad)))
    _raise(wrong)
    return found


def _raise(wrong: list[Wrong]) -> None:
    if wrong:
        raise PydanticCustomError(WRONG_ITEMS, "wrong items", {"items": wrong})


def _assignment(_: int, item: Any) -> tuple[str, str]:
    # The item is not shown: it may be a secret.
    if not isinstance(item, str) or "=" not in item:
        raise ValueError("must be text of the form KEY=VALUE")
    name, _equals, content = item.partition("=")
    return _name(name), _passable(content)


def _name(name: str) -> str:
    if not ENV_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for an environment variable; use letters, digits and _")
    return name


def _content(content: Any) -> str:
    if isinstance(content, bool):
        raise ValueError(f'must be text or a number; write it in quotes: "{str(content).lower()}"')
    if not isinstance(content, str | int | float):
        raise ValueError('must be text or a number; write it in quotes, "" if it is empty')
    return _passable(str(content))


def _passable(content: str) -> str:
    """What can be handed to a process."""
    if "\0" in content or any("\ud800" <= letter <= "\udfff" for letter in content):
        raise ValueError("holds a character that no process can be given")
    return content


def _split(text: str) -> tuple[str, ...]:
    _passable(text)
    try:
        return tuple(shlex.split(text))
    except ValueError as unbalanced:
        raise ValueError(f"cannot be split into arguments: {unbalanced}; close the quote") from None


def _scalar(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("an argument must be text or a number; put it in quotes")
    return _passable(str(value))


MOST_GIB = 1_000_000
EVERYWHERE = -1
"""The key of an amount that is shared by all GPUs in equal parts."""


def gpu_number(value: Any) -> int:
    """As a key, which is always a text."""
    if not str(value).isascii() or not str(value).isdigit():
        raise ValueError(f"{value!r} is not the number of a GPU")
    return int(value)


def amounts(value: Any) -> Any:
    """A number, or a mapping from GPU to number."""
    mapping = isinstance(value, dict)
    found = {gpu_number(number): size for number, size in value.items()} if mapping else {EVERYWHERE: value}
    for size in found.values():
        if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size <= MOST_GIB:
            raise ValueError(f"must be a number of GiB up to {MOST_GIB:,}, or a mapping from GPU to such numbers")
    if not found:
        raise ValueError("is empty")
    return {number: float(size) for number, size in found.items()}
