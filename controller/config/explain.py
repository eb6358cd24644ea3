"""What pydantic found, in words for the person who wrote the file. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from controller.config.mistakes import KeyPath
from controller.config.schema import (
    PLAIN_TEXT,
    SESSION_PREFIX,
    AdapterSection,
    AdapterStoreSection,
    ConfigFile,
    InstanceSection,
    LaunchSection,
    ModelSection,
    RouterSection,
    SleepSection,
    StateSection,
    TimeoutSection,
)
from controller.config.values import WRONG_ITEMS

SECTIONS: Mapping[str, type[BaseModel]] = {
    "router": RouterSection,
    "sleep_manager": SleepSection,
    "launch": LaunchSection,
    "state": StateSection,
    "instances": InstanceSection,
    "models": ModelSection,
    "adapters": AdapterSection,
    "adapter_store": AdapterStoreSection,
    "timeouts": TimeoutSection,
}
REQUIRED = {
    "model": "write the model's name, such as meta-llama/Llama-3.2-1B",
    "instances": "list at least one engine under instances:",
}
TYPES = {
    "bool_type": "true or false",
    "int_type": "a whole number without quotes",
    "int_from_float": "a whole number",
    "float_type": "a number without quotes",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "finite_number": "a finite number",
}
BOUNDS = {
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
}
FORMS = {PLAIN_TEXT: "must be one line of plain text", SESSION_PREFIX: "takes letters, digits, - and _ only"}


def explain(error: ErrorDetails) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield where, what is wrong, what would be right."""
    kind, path, limits = error["type"], error["loc"], error.get("ctx", {})
    if kind == WRONG_ITEMS:
        for item, problem in limits["items"]:
            yield (*path, item), problem, ""
    elif kind == "missing":
        yield path, "is missing", REQUIRED.get(str(path[-1]), "add it")
    elif kind == "extra_forbidden":
        yield path, "unknown key", _advice(path)
    elif kind == "too_short":
        yield path, "is empty", REQUIRED.get(str(path[-1]), "add at least one")
    else:
        yield path, problem_of(error), ""


def nearest(path: KeyPath) -> KeyPath | None:
    """The known key that an unknown one was probably meant to be."""
    close = difflib.get_close_matches(str(path[-1]), known_keys(path[:-1]), n=1, cutoff=0.7)
    return (*path[:-1], close[0]) if close else None


def known_keys(path: KeyPath) -> list[str]:
    section: type[BaseModel] = ConfigFile
    for part in path:
        if isinstance(part, str):
            section = SECTIONS.get(part, section)
    return [field.alias or name for name, field in section.model_fields.items()]


def _advice(path: KeyPath) -> str:
    key = str(path[-1])
    sections: Mapping[str, type[BaseModel]] = {"": ConfigFile, **SECTIONS}
    homes = [name for name, section in sections.items() if name != "adapters" and key in section.model_fields]
    if homes and homes[0]:
        return f"it belongs under {homes[0]}:"
    if homes:
        return "it belongs at the top of the file"
    close = nearest(path)
    return f"did you mean {close[-1]!r}?" if close else f"the known ones are {', '.join(known_keys(path[:-1]))}"


def problem_of(error: ErrorDetails) -> str:
    """What is wrong with one value, in our words."""
    kind, given, limits, message = error["type"], error["input"], error.get("ctx", {}), error["msg"]
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in TYPES:
        return f"must be {TYPES[kind]}, not {_shown(given)}"
    if kind == "string_pattern_mismatch":
        return FORMS[limits["pattern"]]
    if kind in BOUNDS:
        return f"must be {BOUNDS[kind].format(**limits)}, not {_shown(given)}"
    return message


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {_short(repr(value))}"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "such a large number"
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "…"
