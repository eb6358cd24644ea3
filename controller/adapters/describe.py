"""Adapters as text: a table, and all there is to say of one, in the form that kubectl has for resources. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.adapters.phases import NAMESPACE

COLUMNS = ("NAME", "BASE MODEL", "PHASE", "READY", "INSTANCES")
EVENT_COLUMNS = ("Type", "Reason", "At", "Message")
CONDITION = (
    ("Last Transition Time", "lastTransitionTime"),
    ("Message", "message"),
    ("Reason", "reason"),
    ("Status", "status"),
    ("Type", "type"),
)
TRANSITION = (("At", "at"), ("Phase", "phase"), ("Reason", "reason"), ("Message", "message"))


def table(adapters: Sequence[Mapping[str, Any]]) -> str:
    """One line for each, as ``kubectl get`` prints them."""
    rows = [_row(adapter["name"], adapter["spec"], adapter["status"]) for adapter in adapters]
    return "\n".join(_aligned([COLUMNS, *rows]))


def describe(adapter: Mapping[str, Any], events: Sequence[Mapping[str, str]]) -> str:
    """Spec, status, history and events of one, as ``kubectl describe`` prints them."""
    return "\n".join(_lines(adapter, events))


def _row(name: str, spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, ...]:
    ready = f"{status['readyReplicas']}/{status['desiredReplicas']}"
    return name, _base(spec), status["phase"], ready, ",".join(status["instances"]) or "<none>"


def _base(spec: Mapping[str, Any]) -> str:
    labels = spec.get("podSelector", {}).get("matchLabels", {})
    return str(spec.get("baseModel") or next(iter(labels.values()), "<none>"))


def _lines(adapter: Mapping[str, Any], events: Sequence[Mapping[str, str]]) -> Iterator[str]:
    status = adapter["status"]
    head = {
        "Name": adapter["name"],
        "Namespace": NAMESPACE,
        "API Version": "model.aibrix.ai/v1alpha1",
        "Kind": "ModelAdapter",
        "Created": adapter["createdAt"],
        "Generation": str(adapter["generation"]),
        "Declared in": "the YAML file" if adapter["origin"] == "yaml" else "the gateway",
    }
    yield from _pairs(head, 0)
    yield "Spec:"
    yield from _tree(adapter["spec"], 2)
    yield "Status:"
    yield from _listed("Candidates", status["candidates"])
    yield "  Conditions:"
    yield from _entries(status["conditions"], CONDITION)
    yield f"  Desired Replicas:  {status['desiredReplicas']}"
    yield "  History:"
    yield from _entries(status["history"], TRANSITION)
    yield from _listed("Instances", status["instances"])
    yield f"  Phase:  {status['phase']}"
    if progress := status["progress"]:
        yield f"  Progress:  {_progress(progress)}"
    yield f"  Ready Replicas:  {status['readyReplicas']}"
    yield from _troubles(status["places"])
    yield "Events:" if events else "Events:  <none>"
    if events:
        rows = [(one["type"], one["reason"], one["at"], one["message"]) for one in events]
        dashes = tuple("-" * len(column) for column in EVENT_COLUMNS)
        yield from (f"  {line}" for line in _aligned([EVENT_COLUMNS, dashes, *rows]))


def _progress(of: Mapping[str, int | None]) -> str:
    total = "?" if of["totalBytes"] is None else _megabytes(of["totalBytes"])
    files = "?" if of["totalFiles"] is None else of["totalFiles"]
    return f"{_megabytes(of['doneBytes'] or 0)} of {total} MB, {of['doneFiles']} of {files} files"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"


def _troubles(places: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    troubled = {name: place for name, place in places.items() if place["failures"]}
    if troubled:
        yield "  Retries:"
    for name, place in troubled.items():
        again = f"again at {place['nextTry']}" if place["nextTry"] else "not tried again"
        yield f"    {name}:  {place['failures']} failures, {again}: {place['problem']}"


def _entries(entries: Sequence[Mapping[str, str]], keys: Sequence[tuple[str, str]]) -> Iterator[str]:
    for entry in entries:
        yield from _pairs({shown: entry[key] for shown, key in keys}, 4)


def _listed(title: str, values: Sequence[str]) -> Iterator[str]:
    yield f"  {title}:" if values else f"  {title}:  <none>"
    yield from (f"    {value}" for value in values)


def _tree(values: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, value in values.items():
        if not isinstance(value, dict):
            yield f"{' ' * indent}{key}:  {value}"
        elif below := list(_tree(value, indent + 2)):
            yield f"{' ' * indent}{key}:"
            yield from below


def _pairs(pairs: Mapping[str, str], indent: int) -> Iterator[str]:
    width = max(map(len, pairs)) + 1
    for key, value in pairs.items():
        yield f"{' ' * indent}{key + ':':<{width}}  {value}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join(row).rstrip() for row in padded]
