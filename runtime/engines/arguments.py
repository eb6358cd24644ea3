"""Reading an engine's command-line arguments without knowing all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence


def has_flag(args: Sequence[str], flag: str) -> bool:
    return any(name == flag for name, _ in _options(args))


def option(args: Sequence[str], flag: str) -> str | None:
    """The value of the last ``flag``, as ``--flag v`` or ``--flag=v``; None when absent."""
    values = options(args, flag)
    return values[0] if values else None


def options(args: Sequence[str], flag: str) -> tuple[str, ...]:
    """All values of the last ``flag``: ``--flag a b`` gives two."""
    found: tuple[str, ...] = ()
    for name, values in _options(args):
        if name == flag:
            found = values
    return found


def number(args: Sequence[str], flag: str) -> int | None:
    """The value of ``flag`` as a whole number; None when it is absent or none."""
    value = option(args, flag)
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def named_paths(args: Sequence[str], flag: str, key: str) -> tuple[str, ...]:
    """The names of what ``flag`` lists as ``name=path``, or as JSON with the name under ``key``.

    What is neither is left out: the engine itself will say what is wrong with it.
    """
    names = []
    for item in options(args, flag):
        if item.startswith("{"):
            try:
                name = json.loads(item)[key]
            except (ValueError, KeyError, TypeError):
                continue
            if isinstance(name, str):
                names.append(name)
        elif "=" in item:
            names.append(item.partition("=")[0])
    return tuple(names)


def _options(args: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each flag with the values behind it. Underscores count as dashes, as vLLM reads them."""
    index = 0
    while index < len(args):
        word = args[index]
        index += 1
        if not word.startswith("-") or _is_number(word):
            continue
        name, equals, value = word.partition("=")
        values = [value] if equals else []
        while not equals and index < len(args) and (not args[index].startswith("-") or _is_number(args[index])):
            values.append(args[index])
            index += 1
        yield name.replace("_", "-"), tuple(values)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
