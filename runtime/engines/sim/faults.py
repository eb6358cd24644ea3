"""Faults on demand: what to break, how, and how many requests it hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from runtime.engines.sim.errors import ApiError


@dataclass(frozen=True)
class Fault:
    kind: str
    times: int | None = None  # None: until cleared
    tokens: int | None = None
    status: int | None = None
    body: Any = None
    retry_after: float | None = None
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "kind" and value is not None}


@dataclass(frozen=True)
class Kind:
    summary: str
    fields: frozenset[str]
    shorthand: str  # the field a bare number stands for


def _kind(summary: str, *fields: str) -> Kind:
    return Kind(summary, frozenset({"times", *fields}), fields[0] if fields else "times")


_ANSWER = ("status", "body", "retry_after")

KINDS: dict[str, Kind] = {
    "crash": _kind("the process exits: at once, or after so many tokens of a reply", "tokens"),
    "hang": _kind("a request is accepted and never answered"),
    "refuse": _kind("a request is answered with this status (503), body and Retry-After", *_ANSWER),
    "garbage": _kind("a request is answered with bytes that are no HTTP"),
    "short_body": _kind("a reply that is not streamed ends before its Content-Length"),
    "reset_after_tokens": _kind("the connection is reset (RST) after so many tokens", "tokens"),
    "close_after_tokens": _kind("the connection is closed (FIN) after so many tokens, without an end", "tokens"),
    "silent_after_tokens": _kind("the reply stops after so many tokens, the connection stays", "tokens"),
    "error_after_tokens": _kind("the reply ends in the engine's error event after so many tokens", "tokens"),
    "fail_health": _kind("health is answered with this status (503)", *_ANSWER),
    "fail_sleep": _kind("a sleep call is answered with this status (500) and does nothing", *_ANSWER),
    "fail_wake": _kind("a wake call is answered with this status (500) and does nothing", *_ANSWER),
    "slow_wake": _kind("a wake takes so many seconds more", "seconds"),
    "fail_load": _kind("loading an adapter is answered with this status (500) and does nothing", *_ANSWER),
    "slow_load": _kind("loading an adapter takes so many seconds", "seconds"),
    "fail_unload": _kind("unloading an adapter is answered with this status (500) and does nothing", *_ANSWER),
    "wake_ok_but_timeout": _kind("a wake is done, but answered so many seconds (3600) late", "seconds"),
}
AT_THE_DOOR = ("refuse", "hang", "garbage")
IN_A_REPLY = ("crash", "reset_after_tokens", "close_after_tokens", "silent_after_tokens", "error_after_tokens")


def parse(kind: str, value: Any) -> Fault:
    """One fault from JSON: an object of fields, a number for the kind's main field, or true."""
    known = KINDS.get(kind)
    if known is None:
        raise ApiError(400, f"unknown fault {kind!r}; known: {', '.join(KINDS)}", param=kind)
    if value is True or value is None:
        value = {}
    elif isinstance(value, int | float):
        value = {known.shorthand: value}
    if not isinstance(value, dict) or not known.fields.issuperset(value):
        raise ApiError(400, f"fault {kind!r} takes an object of {', '.join(sorted(known.fields))}", param=kind)
    for field in ("times", "tokens", "status", "retry_after", "seconds"):
        if field in value and (isinstance(value[field], bool) or not isinstance(value[field], int | float)):
            raise ApiError(400, f"fault {kind!r}: {field} must be a number", param=kind)
    return Fault(kind, **value)


class Faults:
    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._active: dict[str, Fault] = {}
        self.add(wanted)

    def add(self, wanted: Mapping[str, Any]) -> None:
        """Set these faults; false clears one. Nothing changes when one of them is wrong."""
        parsed = {kind: None if value is False else parse(kind, value) for kind, value in wanted.items()}
        for kind, fault in parsed.items():
            if fault is None:
                self._active.pop(kind, None)
            else:
                self._active[kind] = fault

    def clear(self) -> None:
        self._active.clear()

    def active(self, kind: str) -> Fault | None:
        return self._active.get(kind)

    def take(self, *kinds: str) -> Fault | None:
        """The first of these that is active, one time used up."""
        for kind in kinds:
            fault = self._active.get(kind)
            if fault is None:
                continue
            if fault.times is not None:
                if fault.times <= 1:
                    del self._active[kind]
                else:
                    self._active[kind] = replace(fault, times=fault.times - 1)
            return fault
        return None

    def as_json(self) -> dict[str, Any]:
        return {"faults": {kind: fault.as_json() for kind, fault in self._active.items()}}
