"""How an engine calls what the standard names: data, written for each kind in ``runtime/engines/<kind>/metrics.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """``sources``: the engine's names of one thing, the newest version's first, a counter's without ``_total``.

    ``newest_only``: of its series only the one with the highest value is current.
    """

    sources: tuple[str, ...]
    newest_only: bool = False


Rules = Mapping[str, Rule]
"""By the name of the standard. What an engine does not tell has no rule."""


def merged(first: Rules, second: Rules) -> Rules:
    """For an engine that speaks either way."""
    return {
        name: Rule(
            tuple(source for rules in (first, second) if name in rules for source in rules[name].sources),
            any(rules[name].newest_only for rules in (first, second) if name in rules),
        )
        for name in {**first, **second}
    }
