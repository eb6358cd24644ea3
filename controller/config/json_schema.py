"""The JSON Schema that editors use: ``python -m controller.config.json_schema > config-schema.json``."""

from __future__ import annotations

import json
import sys
from typing import Any

from controller.config.schema import ConfigFile

VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""What ``${VAR}`` stands for is not known to an editor."""


def render() -> str:
    schema = ConfigFile.model_json_schema()
    sections = schema["$defs"]
    for section in (schema, *sections.values()):
        section.pop("title")
        section["properties"] = {key: _as_written(given) for key, given in section["properties"].items()}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Torpor's configuration",
        **schema,
        "patternProperties": {"^x-": {}},
        "$defs": {"Variable": VARIABLE, **sections},
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _as_written(given: dict[str, Any]) -> dict[str, Any]:
    """A key as a file may have it: a variable in place of a value, nothing in place of a list or a section."""
    notes = {key: given[key] for key in ("description", "default") if key in given}
    value = {key: content for key, content in given.items() if key not in (*notes, "title")}
    kinds = value.pop("anyOf", None) or [value]
    if any(_is_limited(kind) for kind in kinds):
        kinds.append({"$ref": "#/$defs/Variable"})
    elif any("$ref" in kind or kind.get("type") == "array" for kind in kinds) and "default" in notes:
        kinds += [] if {"type": "null"} in kinds else [{"type": "null"}]
        notes.pop("default")  # nothing; a section's keys have their own
    return {**(kinds[0] if len(kinds) == 1 else {"anyOf": kinds}), **notes}


def _is_limited(kind: dict[str, Any]) -> bool:
    """Whether a text with a variable in it would not do."""
    return kind.get("type") in ("boolean", "integer", "number") or "enum" in kind


if __name__ == "__main__":
    sys.stdout.write(render())
