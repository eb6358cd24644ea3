"""A YAML text as plain values, with the line of every key, and with ``${VAR}`` filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from controller.config.mistakes import KeyPath, Mistake, key_of

VARIABLE = re.compile(r"\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(slots=True)
class Document:
    values: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line(self, path: KeyPath) -> int:
        """The line of ``path``, or of the nearest thing that holds it."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str, environment: Mapping[str, str]) -> Document:
    """Parse ``text``. What is wrong with the YAML itself is in ``mistakes``; nothing is raised."""
    document = Document(values=None)
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            document.values = _Reader(loader, environment, document).value(node, ())
    except yaml.MarkedYAMLError as broken:
        mark = broken.problem_mark or broken.context_mark
        problem = broken.problem or broken.context or "cannot be read"
        document.mistakes.append(Mistake(mark.line + 1 if mark else 1, "", f"not valid YAML: {problem}"))
    except yaml.YAMLError as broken:
        document.mistakes.append(Mistake(1, "", f"not valid YAML: {broken}"))
    finally:
        loader.dispose()
    return document


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, environment: Mapping[str, str], document: Document) -> None:
        self._loader = loader
        self._environment = environment
        self._document = document
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(None, None, "an anchor that contains itself", node.start_mark)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for name in sorted({name for name in written if written.count(name) > 1}):
            line = [key for key, _ in node.value if key.value == name][-1].start_mark.line + 1
            self._add(line, (*path, name), "is given twice", "keep one of them")
        self._loader.flatten_mapping(node)
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._loader.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool):
                raise yaml.MarkedYAMLError(None, None, "a key must be plain text", key_node.start_mark)
            # bool is an int to Python, and YAML 1.1 reads `on` and `no` as one
            name = key if isinstance(key, int) and not isinstance(key, bool) else str(key)
            self._document.lines[(*path, name)] = key_node.start_mark.line + 1
            values[name] = self.value(value_node, (*path, name))
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        text = VARIABLE.sub(lambda match: self._expand(match, node, path), node.value)
        if text != node.value:
            plain = isinstance(node, yaml.ScalarNode) and node.style is None
            # What was written without quotes is read again: ${PORT} may be a number.
            tag = _plain_tag(self._loader, text) if plain else node.tag
            node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        return self._loader.construct_object(node, deep=True)

    def _expand(self, match: re.Match[str], node: yaml.Node, path: KeyPath) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group(0)[1:]
        content = self._environment.get(name) or default
        if content is None:
            content = self._environment.get(name)
        if content is None:
            self._add(
                node.start_mark.line + 1,
                path,
                f"the environment variable {name} is not set",
                f"set it, or give a default: ${{{name}:-…}}",
            )
            return ""
        return content

    def _add(self, line: int, path: KeyPath, problem: str, fix: str) -> None:
        self._document.mistakes.append(Mistake(line, key_of(path), problem, fix))


def _plain_tag(loader: yaml.SafeLoader, text: str) -> str:
    tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag
