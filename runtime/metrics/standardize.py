"""From an engine's metrics page to the standard names. Pure: text in, text or families out.

Nothing is computed: a standard metric is a copy of the engine's under another name, labels and values as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from runtime.metrics.names import STANDARDS, Standard, Vocabulary
from runtime.metrics.rules import Rule, Rules
from runtime.metrics.text import render

LARGEST_PAGE = 16 << 20  # characters

_UNTYPED = "unknown"


class Unparseable(Exception):
    """The page is not Prometheus text. What it says instead is in no log: it may be anything."""


def standardize(page: str, rules: Rules, vocabulary: Vocabulary, *, keep_originals: bool = True) -> str:
    """The page under standard names, with what the engine wrote before them or without. Raises ``Unparseable``."""
    families = parse(page)
    known = {family.name for family in families} if keep_originals else set()
    standard = [one for one in standard_families(families, rules, vocabulary) if one.name not in known]
    return (without_end(page) if keep_originals else "") + render(standard)


def parse(page: str) -> list[Metric]:
    """Raises ``Unparseable``."""
    if len(page) > LARGEST_PAGE:
        raise Unparseable(f"it has more than {LARGEST_PAGE} characters")
    try:
        return list(text_string_to_metric_families(page))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unparseable(type(error).__name__) from error


def relevant(page: str, rules: Rules) -> str:
    """The lines that a rule could be about: for who needs no more, a fraction of the work."""
    names = [source for rule in rules.values() for source in rule.sources]
    heads = tuple(head + name for name in names for head in ("", "# TYPE ", "# HELP "))
    return "".join(line for line in page.splitlines(keepends=True) if line.startswith(heads))


def standard_families(families: Iterable[Metric], rules: Rules, vocabulary: Vocabulary) -> list[Metric]:
    """What of the standard set there is, in its order."""
    present = _present(families)
    found = []
    for standard in STANDARDS.values():
        rule = rules.get(standard.name)
        source = _newest(rule, standard, present) if rule is not None else None
        if rule is not None and source is not None:
            found += [_copy(source, standard, name, rule) for name in vocabulary.names(standard)]
    return found


def labelled(families: Iterable[Metric], labels: Mapping[str, str]) -> list[Metric]:
    """The same with these labels on each sample, in place of an engine's own of the same names."""
    copies = []
    for family in families:
        copy = Metric(family.name, family.documentation, family.type)
        copy.samples = [sample._replace(labels={**sample.labels, **labels}) for sample in family.samples]
        copies.append(copy)
    return copies


def joined(families: Iterable[Metric]) -> list[Metric]:
    """Each name once, with the samples of all that had it."""
    by_name: dict[str, Metric] = {}
    for family in families:
        first = by_name.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        first.samples.extend(family.samples)
    return list(by_name.values())


def without_end(page: str) -> str:
    """The page, ready to be written on: its last line ended, and OpenMetrics' mark of the end gone."""
    body = page.rstrip()
    body = body.removesuffix("# EOF").rstrip()
    return body + "\n" if body else ""


def _present(families: Iterable[Metric]) -> dict[tuple[str, str], Metric]:
    """By name and type, since a gauge and a counter may share a name. Untyped counters still have their suffix."""
    present: dict[tuple[str, str], Metric] = {}
    for family in families:
        if family.samples:
            name = family.name.removesuffix("_total") if family.type == _UNTYPED else family.name
            present.setdefault((name, family.type), family)
    return present


def _newest(rule: Rule, standard: Standard, present: Mapping[tuple[str, str], Metric]) -> Metric | None:
    for source in rule.sources:
        for kind in (standard.kind, _UNTYPED):
            family = present.get((source, kind))
            if family is not None and _fits(family, standard):
                return family
    return None


def _fits(family: Metric, standard: Standard) -> bool:
    """An untyped family is a value or a count; a histogram without its type is three of them, and no use."""
    return family.type != _UNTYPED or standard.kind != "histogram"


def _copy(source: Metric, standard: Standard, name: str, rule: Rule) -> Metric:
    copy = Metric(name, standard.summary, standard.kind)
    samples = [sample for sample in source.samples if not sample.name.endswith("_created")]
    if rule.newest_only:
        samples = sorted(samples, key=lambda sample: sample.value)[-1:]
    copy.samples = [_renamed(sample, source, standard, name) for sample in samples]
    return copy


def _renamed(sample: Sample, source: Metric, standard: Standard, name: str) -> Sample:
    if standard.kind == "histogram":
        return sample._replace(name=name + sample.name.removeprefix(source.name), exemplar=None)
    return sample._replace(name=f"{name}_total" if standard.kind == "counter" else name, exemplar=None)
