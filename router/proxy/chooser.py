"""What a model's balancing policy is told of a request."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from controller.config.schema import ModelSection
from controller.fleet.instance import Instance
from controller.fleet.routes import Choose
from router.balancing import POLICIES, Wants
from router.proxy.call import Call
from router.proxy.headers import header

PROMPT = re.compile(rb'"(?:messages|prompt|input|system)"\s*:')


class Chooser:
    """One model's policy, and where in a request it finds what it wants to know."""

    def __init__(self, settings: ModelSection) -> None:
        self._made_for = _balancing(settings)
        self._policy = POLICIES[settings.balancing]()
        self._header = settings.session_header.encode()
        self._field = settings.session_field
        self.blind: Choose | None = self._policy.choose if self._policy.wants is Wants.NOTHING else None
        """For every call, where none is looked at."""

    def fits(self, settings: ModelSection) -> bool:
        """Whether one made for ``settings`` would do the same; this one remembers more."""
        return self._made_for == _balancing(settings)

    def for_call(self, call: Call) -> Choose:
        if self.blind is not None:
            return self.blind
        about = self._session(call) if self._policy.wants is Wants.SESSION else prompt_of(call.body)
        return lambda ready: self._choose(ready, about)

    def _choose(self, ready: Sequence[Instance], about: bytes) -> Instance:
        return self._policy.choose(ready, about)

    def _session(self, call: Call) -> bytes:
        named = header(call.headers, self._header)
        if named or self._field is None:
            return named
        try:
            value = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw]).get(self._field)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return b""  # a form, or what only the engine can make sense of
        return bytes(value) if value is not None else b""


def _balancing(settings: ModelSection) -> tuple[str, str, str | None]:
    return settings.balancing, settings.session_header, settings.session_field


def prompt_of(body: bytes) -> bytes:
    """The body from the prompt on: a temperature before it says nothing of a shared beginning."""
    found = PROMPT.search(body)
    return body[found.start() :] if found else body
