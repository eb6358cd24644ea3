"""The house rules of docs/architecture.md, kept by reading the code. Each rule is shown to bite, too."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "state": frozenset(),
    "runtime": frozenset(),
    "controller": frozenset({"runtime", "state"}),
    "jobs": frozenset({"state"}),
    "router": frozenset({"controller", "jobs", "runtime", "state"}),
}
DOORS: Mapping[str, tuple[str, ...]] = {
    "libtmux": ("controller/launch/tmux.py",),
    "sqlalchemy": ("state/*",),
    "alembic": ("state/*",),
    "aiosqlite": ("state/*",),
    "yaml": ("controller/config/*",),
    "pynvml": ("runtime/gpus.py",),
}
ENVIRONMENT = (
    "launch.py",
    "controller/cli.py",
    "controller/config/load.py",
    "controller/launch/*",
    "runtime/settings.py",
    "runtime/engines/sim/*",
)
DRAWERS = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})
KINDS = frozenset({"vllm", "sglang"})
FILE_LINES, FUNCTION_LINES = 400, 60

Rule = Callable[[Path], list[str]]


def sources(root: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Each module below ``folders``, by its path from the root."""
    for folder in folders:
        for file in sorted((root / folder).rglob("*.py")):
            yield file.relative_to(root).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def packages(root: Path) -> Iterator[tuple[str, ast.Module]]:
    yield from sources(root, *MAY_IMPORT)


def programs(root: Path) -> Iterator[tuple[str, ast.Module]]:
    yield from packages(root)
    for file in sorted(root.glob("*.py")):
        yield file.name, ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Line, module and names of each import, at whatever depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name, ()
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or ""), tuple(name.name for name in node.names)


def top(module: str) -> str:
    return module.partition(".")[0]


def is_in(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def imports_go_down(root: Path) -> list[str]:
    """Of our packages, each imports those below it only, and by their whole names."""
    found = []
    for path, tree in packages(root):
        own = path.partition("/")[0]
        for line, module, _ in imports(tree):
            if module.startswith("."):
                found.append(f"{path}:{line} imports {module}: write the whole name")
            elif top(module) in MAY_IMPORT.keys() - MAY_IMPORT[own] - {own}:
                found.append(f"{path}:{line} imports {module}: {own} may not")
            elif top(module) in ("tests", "benchmarks"):
                found.append(f"{path}:{line} imports {module}: no package may")
    return found


def libraries_have_one_door(root: Path) -> list[str]:
    """tmux, SQL and YAML are each known in one place."""
    return [
        f"{path}:{line} imports {module}: only {', '.join(DOORS[top(module)])} may"
        for path, tree in programs(root)
        for line, module, _ in imports(tree)
        if top(module) in DOORS and not is_in(path, DOORS[top(module)])
    ]


def the_environment_is_read_at_the_edge(root: Path) -> list[str]:
    """``os.environ`` and ``os.getenv`` are used where programs start and settings are read."""
    found = []
    for path, tree in programs(root):
        if is_in(path, ENVIRONMENT):
            continue
        used = {(line, name) for line, module, names in imports(tree) if module == "os" for name in names}
        used |= {
            (node.lineno, node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_os(node)
        }
        found += [f"{path}:{line} uses os.{name}" for line, name in sorted(used) if name in ("environ", "getenv")]
    return found


def _is_os(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "os"


def nothing_is_global(root: Path) -> list[str]:
    """No ``global`` statement."""
    return [
        f"{path}:{node.lineno} global {', '.join(node.names)}"
        for path, tree in programs(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]


def no_module_is_a_drawer(root: Path) -> list[str]:
    """A module is named after its one concept."""
    return [path for path, _ in packages(root) if DRAWERS & {*Path(path).with_suffix("").parts}]


def files_are_short(root: Path) -> list[str]:
    """A file ends at 400 lines."""
    lengths = {path: len((root / path).read_text(encoding="utf-8").splitlines()) for path, _ in programs(root)}
    return [f"{path} has {length} lines" for path, length in lengths.items() if length > FILE_LINES]


def functions_are_short(root: Path) -> list[str]:
    """A function ends at 60 lines."""
    return [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for path, tree in programs(root)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES
    ]


def modules_do_not_import_in_circles(root: Path) -> list[str]:
    """Not even by an import inside a function."""
    trees = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): tree for path, tree in packages(root)
    }
    graph = {}
    for name, tree in trees.items():
        wanted = {target for _, module, names in imports(tree) for target in _targets(module, names, trees)}
        graph[name] = wanted - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        return [" -> ".join(circle.args[1])]
    return []


def _targets(module: str, names: tuple[str, ...], known: Mapping[str, ast.Module]) -> Iterator[str]:
    """The modules an import runs: ``from a import b`` may mean the module ``a.b`` or a name in ``a``."""
    for name in names or ("",):
        if f"{module}.{name}" in known:
            yield f"{module}.{name}"
        elif module in known:
            yield module


def kinds_are_named_in_runtime_engines(root: Path) -> list[str]:
    """Elsewhere an engine is what its kind's entry says it is."""
    return [
        f"{path}:{node.lineno} names {node.value!r}"
        for path, tree in packages(root)
        if not path.startswith("runtime/engines/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in KINDS
    ]


def folders_of_tests_are_packages(root: Path) -> list[str]:
    """Else ``tests/router`` would be imported in place of ``router``."""
    folders = {file.parent for file in (root / "tests").rglob("*.py")}
    return [folder.relative_to(root).as_posix() for folder in sorted(folders) if not (folder / "__init__.py").exists()]


folders_of_tests_are_packages.__test__ = False  # type: ignore[attr-defined]

RULES: list[Rule] = [
    imports_go_down,
    libraries_have_one_door,
    the_environment_is_read_at_the_edge,
    nothing_is_global,
    no_module_is_a_drawer,
    files_are_short,
    functions_are_short,
    modules_do_not_import_in_circles,
    kinds_are_named_in_runtime_engines,
    folders_of_tests_are_packages,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    """Each finding says where."""
    assert rule(ROOT) == []


BAD: list[tuple[Rule, dict[str, str]]] = [
    (imports_go_down, {"state/a.py": "import runtime.engines"}),
    (imports_go_down, {"runtime/a.py": "def f():\n    from state import x"}),
    (imports_go_down, {"controller/a.py": "from router.app import create_app"}),
    (imports_go_down, {"controller/a.py": "from jobs import batch"}),
    (imports_go_down, {"jobs/a.py": "import controller"}),
    (imports_go_down, {"runtime/engines/a.py": "from . import b"}),
    (imports_go_down, {"router/a.py": "from tests import x"}),
    (libraries_have_one_door, {"controller/launch/launcher.py": "import libtmux"}),
    (libraries_have_one_door, {"router/a.py": "from sqlalchemy.ext.asyncio import AsyncEngine"}),
    (libraries_have_one_door, {"controller/a.py": "from alembic import command"}),
    (libraries_have_one_door, {"launch.py": "import yaml"}),
    (the_environment_is_read_at_the_edge, {"router/a.py": "import os\nx = os.environ['A']"}),
    (the_environment_is_read_at_the_edge, {"runtime/engines/vllm/a.py": "import os\nx = os.getenv('A')"}),
    (the_environment_is_read_at_the_edge, {"controller/a.py": "from os import environ"}),
    (nothing_is_global, {"router/a.py": "def f():\n    global x\n    x = 1"}),
    (no_module_is_a_drawer, {"router/utils.py": ""}),
    (no_module_is_a_drawer, {"runtime/common/a.py": ""}),
    (files_are_short, {"router/a.py": "x = 1\n" * 401}),
    (functions_are_short, {"router/a.py": "async def f():\n" + "    x = 1\n" * 60}),
    (functions_are_short, {"launch.py": "def f():\n" + "    x = 1\n" * 60}),
    (modules_do_not_import_in_circles, {"router/a.py": "import router.b", "router/b.py": "from router.a import x"}),
    (modules_do_not_import_in_circles, {"router/a.py": "from router import b", "router/b.py": "from router import a"}),
    (
        modules_do_not_import_in_circles,
        {"state/a.py": "def f():\n    import state.b", "state/b.py": "import state.c", "state/c.py": "import state.a"},
    ),
    (kinds_are_named_in_runtime_engines, {"router/a.py": "def f(kind):\n    return kind == 'vllm'"}),
    (kinds_are_named_in_runtime_engines, {"controller/a.py": "def f(kind):\n    return kind in ('SGLang', 'sim')"}),
    (folders_of_tests_are_packages, {"tests/__init__.py": "", "tests/router/test_a.py": ""}),
]


@pytest.mark.parametrize(("rule", "files"), BAD, ids=[f"{rule.__name__}-{next(iter(files))}" for rule, files in BAD])
def test_each_rule_can_fail(rule: Rule, files: dict[str, str], tmp_path: Path) -> None:
    """One bad sample, one finding of that rule and none of the others."""
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert {other.__name__: len(other(tmp_path)) for other in RULES if other(tmp_path)} == {rule.__name__: 1}


def test_every_rule_has_a_bad_sample() -> None:
    """A rule that nobody has seen fail proves nothing."""
    assert {rule.__name__ for rule, _ in BAD} == {rule.__name__ for rule in RULES}


def test_the_rules_let_good_code_be(tmp_path: Path) -> None:
    """What the rules allow is found right by all of them."""
    good = {
        "router/a.py": "import controller.a\nfrom runtime import b\nimport jobs.c\nimport state.d\nimport router.e",
        "router/e.py": "import starlette\nX = 'vllm is mentioned'\ndef f():\n" + "    x = 1\n" * 59,
        "controller/a.py": "import os\nimport runtime.b\nimport state.d\nx = os.path",
        "controller/launch/tmux.py": "import libtmux\nimport os\nx = os.environ",
        "controller/config/load.py": "import yaml\nfrom os import environ",
        "runtime/b.py": "import runtime.engines.vllm.c",
        "runtime/engines/vllm/c.py": "x = 'vllm'",
        "jobs/c.py": "import state.d",
        "state/d.py": "import sqlalchemy\nimport alembic",
        "tests/__init__.py": "",
        "tests/router/__init__.py": "",
        "tests/router/test_a.py": "import router.a",
    }
    for path, text in good.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert [finding for rule in RULES for finding in rule(tmp_path)] == []
