"""Small things that keep the code readable: sizes, no unfinished business, nothing that nobody uses."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dsfast"
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")])
MODULES = [path for path in SOURCES if path.suffix == ".py"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of every function, without its docstring."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.body[0].lineno
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - first + 1


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_fits_a_readers_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_fits_a_screen(path: Path) -> None:
    long = {name: length for name, length in functions(path) if length > FUNCTION_LINES_MAX}
    assert not long


def test_most_functions_are_short() -> None:
    lengths = sorted(length for path in MODULES for _, length in functions(path))
    assert lengths[len(lengths) // 2] <= 8
    assert lengths[len(lengths) * 95 // 100] <= 30


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_left_for_later(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert not UNFINISHED.search(line), f"line {number}: {line.strip()}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_errors_are_not_swallowed(path: Path) -> None:
    """Whoever catches everything must do something with it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            assert not (broad and all(isinstance(each, ast.Pass) for each in node.body)), f"line {node.lineno}"


def entry_points() -> set[str]:
    """Modules that are named in pyproject.toml: commands and plug-ins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["scripts"].values()]
    for group in project.get("entry-points", {}).values():
        named += group.values()
    return {target.partition(":")[0] for target in named}


def names_mentioned(path: Path) -> set[str]:
    """Every dotted name that a file imports or spells in a string; and files beside it that it starts by name."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.partition(":")[0])
            if re.fullmatch(r"\w+\.py", node.value):
                found.add(dotted(path.with_name(node.value)))
    return found


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_module_is_used_by_another() -> None:
    used = entry_points()
    for path in MODULES:
        used |= names_mentioned(path) - {dotted(path)}
    found_by_tool = {path for path in MODULES if path.name == "__main__.py" or "migrations" in path.parts}
    dead = [dotted(path) for path in MODULES if path not in found_by_tool and path.name != "__init__.py"]
    assert not [name for name in dead if name not in used]


def test_kernels_are_built_and_described() -> None:
    kernels = {path.stem for path in (PACKAGE / "_core").glob("*.pyx")}
    assert kernels == {path.stem for path in (PACKAGE / "_core").glob("*.pyi")}
    setup = (ROOT / "setup.py").read_text()
    assert all(kernel in setup for kernel in kernels)
