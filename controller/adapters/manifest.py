"""Adapters and credentials as Kubernetes writes them: ``kind: ModelAdapter`` and ``kind: Secret``, many in one file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from controller.adapters.spec import AdapterSpec, adapter_name
from controller.config.document import Document, read_all
from controller.config.explain import problem_of
from controller.config.load import text_of
from controller.config.mistakes import ConfigError, Mistake

ADAPTER, SECRET = "ModelAdapter", "Secret"
VERSIONS = {ADAPTER: "model.aibrix.ai/v1alpha1", SECRET: "v1"}
KEYS = {
    ADAPTER: frozenset({"apiVersion", "kind", "metadata", "spec", "status"}),
    SECRET: frozenset({"apiVersion", "kind", "metadata", "type", "data", "stringData", "immutable"}),
}


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    name: str
    spec: AdapterSpec


@dataclass(frozen=True, slots=True)
class SecretManifest:
    name: str
    values: Mapping[str, str] = field(repr=False)


Manifest = AdapterManifest | SecretManifest


def load_manifests(file: Path, environment: Mapping[str, str]) -> list[Manifest]:
    """Raises ``ConfigError`` with every mistake in ``file``. ``${NAME}`` is filled in from ``environment``."""
    return read_manifests(text_of(file, ""), file, environment)


def read_manifests(text: str, file: Path, environment: Mapping[str, str]) -> list[Manifest]:
    documents = [one for one in read_all(text, environment) if one.values is not None or one.mistakes]
    if not documents:
        raise ConfigError(file, [Mistake(1, "", "the file is empty", f"write a {ADAPTER} or a {SECRET}")])
    found: dict[tuple[type[Manifest], str], Manifest] = {}
    for document in documents:
        manifest = _manifest(document) if document.values is not None else None
        if manifest is None:
            continue
        if (type(manifest), manifest.name) in found:
            document.add(("metadata", "name"), f"{manifest.name!r} is in this file already", "keep one of them")
        found[type(manifest), manifest.name] = manifest
    mistakes = [mistake for document in documents for mistake in document.mistakes]
    if mistakes:
        raise ConfigError(file, mistakes)
    return list(found.values())


def _manifest(document: Document) -> Manifest | None:
    """What one document says; what is wrong with it becomes its mistakes."""
    values = document.values
    if not isinstance(values, dict):
        document.add((), f"must be a mapping with kind: {ADAPTER} or kind: {SECRET}", "")
        return None
    kind = values.get("kind")
    if kind not in VERSIONS:
        known = " and ".join(VERSIONS)
        document.add(
            ("kind",), "is missing" if kind is None else f"{str(kind)[:60]!r} is not known", f"there are {known}"
        )
        return None
    if values.get("apiVersion") != VERSIONS[kind]:
        document.add(("apiVersion",), f"must be {VERSIONS[kind]}", "")
    for key in values.keys() - KEYS[kind]:
        document.add((key,), "unknown key", f"the known ones are {', '.join(sorted(KEYS[kind]))}")
    name = _name(document)
    if kind == ADAPTER:
        spec = _spec(document)
        return AdapterManifest(name, spec) if name and spec else None
    secrets = _values(document)
    return SecretManifest(name, secrets) if name else None


def _name(document: Document) -> str | None:
    metadata = document.values.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    try:
        if not isinstance(name, str):
            raise ValueError("is missing" if name is None else "must be text; write it in quotes")
        return adapter_name(name)
    except ValueError as wrong:
        document.add(("metadata", "name"), str(wrong), "")
        return None


def _spec(document: Document) -> AdapterSpec | None:
    try:
        return AdapterSpec.model_validate(document.values.get("spec", {}))
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            document.add(("spec", *error["loc"]), *_told(error))
        return None


def _told(error: ErrorDetails) -> tuple[str, str]:
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in AdapterSpec.model_fields.items()]
        return "unknown key", f"the known ones are {', '.join(known)}" if len(error["loc"]) == 1 else ""
    if error["type"] == "missing":
        return "is missing", ""
    return problem_of(error), ""


def _values(document: Document) -> dict[str, str]:
    """No value is shown, whatever is wrong with it."""
    found: dict[str, str] = {}
    for part, read in (("data", _decoded), ("stringData", str)):
        values = document.values.get(part) or {}
        if not isinstance(values, dict):
            document.add((part,), "must be a mapping (key: value)", "")
            continue
        for key, value in values.items():
            text = read(value) if isinstance(value, str) else None
            if text is None:
                document.add((part, key), f"must be {'base64 of text' if part == 'data' else 'text'}", "")
            else:
                found[key] = text
    if not document.values.get("data") and not document.values.get("stringData"):
        document.add((), "has neither stringData nor data", "write the credentials under stringData:")
    return found


def _decoded(text: str) -> str | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
