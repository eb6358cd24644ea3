"""A YAML text as plain values, with the line of every key, and with ``${VAR}`` filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from controller.config.mistakes import KeyPath, Mistake, key_of

VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
MERGE = "tag:yaml.org,2002:merge"
MAX_VALUES = 100_000
"""A few anchors within anchors can stand for more values than any machine holds."""
MAX_DEPTH = 50

Entry = tuple[yaml.Node, yaml.Node]


@dataclass(slots=True)
class Document:
    values: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    """Keys of which nothing more need be said."""

    def add(self, path: KeyPath, problem: str, fix: str, line: int | None = None) -> None:
        key = key_of(path)
        self.settled.add(key)
        self.mistakes.append(Mistake(line or self.line(path), key, problem, fix))

    def line(self, path: KeyPath) -> int:
        """The line of ``path``, or of the nearest thing that holds it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str, environment: Mapping[str, str]) -> Document:
    """Parse ``text``. What is wrong with the YAML itself is in ``mistakes``; nothing is raised."""
    document = Document(values=None)
    with _explained(text, document), _loader(text) as loader:
        node = loader.get_single_node()
        if node is not None:
            document.values = _Reader(loader, environment, document).value(node, ())
    return document


def read_all(text: str, environment: Mapping[str, str]) -> list[Document]:
    """As ``read``, of a text with several documents. One that cannot be parsed is the last."""
    documents: list[Document] = []
    broken = Document(values=None)
    with _explained(text, broken), _loader(text) as loader:
        while loader.check_node():
            node = loader.get_node()
            document = Document(values=None)
            if node is not None:
                document.values = _Reader(loader, environment, document).value(node, ())
            documents.append(document)
    return [*documents, broken] if broken.mistakes else documents


@contextmanager
def _loader(text: str) -> Iterator[yaml.SafeLoader]:
    loader = yaml.SafeLoader(text)
    try:
        yield loader
    finally:
        loader.dispose()


@contextmanager
def _explained(text: str, document: Document) -> Iterator[None]:
    """What YAML finds wrong with ``text`` becomes a mistake of ``document``."""
    try:
        yield
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        problem = broken.problem or broken.context or "cannot be read"
        line = mark.line + 1 if mark else 1
        inside = "got '{'" in problem and "${" in text.splitlines()[line - 1]
        fix = "inside [ ] and { } a ${…} must be in quotes" if inside else ""
        document.mistakes.append(Mistake(line, "", f"not valid YAML: {problem}", fix))
    except yaml.reader.ReaderError as broken:
        line = text.count("\n", 0, broken.position) + 1
        problem = f"not valid YAML: the character {chr(broken.character)!r} is not allowed"
        document.mistakes.append(Mistake(line, "", problem))
    except RecursionError:
        document.mistakes.append(Mistake(1, "", "is nested too deeply"))


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, environment: Mapping[str, str], document: Document) -> None:
        self._loader = loader
        self._environment = environment
        self._document = document
        self._open: set[int] = set()
        self._entries: dict[int, dict[str, Entry]] = {}
        self._values = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        if self._values > MAX_VALUES:
            raise _broken(f"stands for more than {MAX_VALUES} values", node)
        if len(path) > MAX_DEPTH:
            raise _broken(f"is nested deeper than {MAX_DEPTH} levels", node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise _broken("an anchor that contains itself", node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values = {}
        for name, (key, content) in self._entries_of(node, path).items():
            self._document.lines[(*path, name)] = key.start_mark.line + 1
            values[name] = self.value(content, (*path, name))
        return values

    def _entries_of(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Entry]:
        """What a mapping holds, by the key as it is written: what it merges first, its own on top."""
        known = self._entries.get(id(node))
        if known is not None:
            return known
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, content in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _broken("a key must be plain text", key)
            if key.tag == MERGE:
                merged = {**self._merged(node, content, path), **merged}
                continue
            if key.value in own:
                line = key.start_mark.line + 1
                self._document.add((*path, key.value), "is given twice", "keep one of them", line)
            own[key.value] = key, content
        self._entries[id(node)] = {**merged, **own}
        return self._entries[id(node)]

    def _merged(self, node: yaml.MappingNode, content: yaml.Node, path: KeyPath) -> dict[str, Entry]:
        sources = content.value if isinstance(content, yaml.SequenceNode) else [content]
        merged: dict[str, Entry] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise _broken("<<: takes a mapping or a list of mappings", content)
            if source is node or (id(source) in self._open and id(source) not in self._entries):
                raise _broken("an anchor that contains itself", content)
            merged |= self._entries_of(source, path)
        return merged

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        text = VARIABLE.sub(lambda match: self._expand(match, node, path), node.value)
        if text == node.value:
            return self._construct(node, path)
        # What was written without quotes is read again, for ${PORT} may be a number. But nothing may get lost on
        # the way: to YAML a key of 0123 is 83.
        if node.style is None:
            again = yaml.ScalarNode(_plain_tag(self._loader, text), text, node.start_mark, node.end_mark)
            content = self._construct(again, path)
            if content is None and not text:
                return None
            if isinstance(content, bool) and text.lower() in ("true", "false"):
                return content
            if isinstance(content, int | float) and not isinstance(content, bool) and str(content) == text:
                return content
        return text

    def _construct(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.MarkedYAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            problem = f"cannot be read as {kind}: {node.value[:40]!r}"
            self._document.add(path, problem, "write it in quotes if it is text", node.start_mark.line + 1)
            return node.value

    def _expand(self, match: re.Match[str], node: yaml.Node, path: KeyPath) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group(0)[1:]
        content = self._environment.get(name)
        if not content and default is not None:
            return str(default)
        if content is None:
            fix = f"set it, or give a default: ${{{name}:-…}}"
            problem = f"the environment variable {name} is not set"
            self._document.add(path, problem, fix, node.start_mark.line + 1)
            return ""
        return content


def _broken(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, node.start_mark)


def _plain_tag(loader: yaml.SafeLoader, text: str) -> str:
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag
