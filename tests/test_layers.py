"""Imports point down only: who may import whom, and what stays out of everything below the runtime.

cli  client  api  chaos  bench      people and programs, and who breaks or measures all of it
      runtime                       loops, links, processes
store  registry  tasks  formats     adapters; they do not know one another, but formats know task types
      engine                        pure: events in, effects out
wire  model  rows  ids  errors      the nouns, and commands as data
      _core                         kernels; they import nothing of ours
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dsfast"
NOUNS = {"model", "rows", "ids", "errors"}
SMALL = {"errors", "failpoint", "log", "model", "ids"}  # what any adapter may know
EVERYTHING = {
    path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")
}

# What each part may import of dsfast, beside itself. A part that is not here fails the test: decide where it belongs.
ALLOWED: dict[str, set[str]] = {
    "_core": set(),
    "errors": set(),
    "fatal": set(),
    "failpoint": {"errors"},
    "ids": set(),
    "model": set(),
    "rows": {"model"},
    "log": {"config"},
    "templates": {"model", "errors"},
    "wire": {"_core", "model", "errors"},
    "engine": {"_core", "wire", "templates", *NOUNS},
    "proof": {"engine", *NOUNS},
    "sim": {"_core", "engine", "wire", "proof", *NOUNS},
    "store": {"rows", *SMALL},
    "registry": {"fatal", *SMALL},
    "tasks": {"templates", "wire", *SMALL},
    "formats": {"_core", "tasks", "engine", "templates", "wire", *SMALL},
    "config": {"errors", "model"},
    "views": {"engine", "wire", *NOUNS},
    "runtime": EVERYTHING - {"cli", "client", "api", "chaos", "bench"},
    "api": EVERYTHING - {"cli", "chaos", "bench"},
    "client": EVERYTHING - {"cli", "api", "chaos", "bench"},
    "chaos": EVERYTHING - {"cli"},
    "bench": EVERYTHING - {"cli", "client", "api", "chaos"},
    "cli": EVERYTHING,
}

BELOW_RUNTIME = ("engine", "wire", "rows", "model", "ids", "errors", "templates", "_core")
EFFECTS = {"asyncio", "socket", "ssl", "time", "os", "subprocess", "threading", "selectors", "signal", "pathlib", "io"}
ADAPTERS = {"sqlalchemy", "kazoo", "uvloop", "asyncpg", "pymysql", "starlette", "uvicorn", "click", "rich"}
PURE_BANS = EFFECTS | ADAPTERS | {"secrets", "uuid"}

# A library that one adapter is about stays inside it, so that it can be changed there.
HOMES = {
    "sqlalchemy": {"store", "registry"},
    "alembic": {"store"},
    "asyncpg": {"store", "registry"},
    "pymysql": {"store", "registry"},
    "kazoo": {"registry"},
    "starlette": {"api"},
    "uvicorn": {"api"},
    "click": {"cli"},
    "rich": {"cli"},
    "uvloop": {"runtime", "cli"},
}


def modules(*parts: str) -> list[Path]:
    """The Python files of these parts, of all without any."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not parts or part_of(path) in parts]


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imported(path: Path) -> Iterator[str]:
    """Every dotted name that the file imports, wherever in it; relative ones are not used here."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} has a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_imported(path: Path) -> set[str]:
    """The parts of dsfast that the file imports."""
    names = [name.split(".") for name in imported(path)]
    return {name[1] for name in names if name[0] == "dsfast" and len(name) > 1} & EVERYTHING


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    part = part_of(path)
    if part.startswith("__"):
        return
    allowed = ALLOWED[part] | {part}
    wrong = parts_imported(path) - allowed
    assert not wrong, f"{part} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", modules(*BELOW_RUNTIME), ids=name_of)
def test_what_decides_neither_waits_nor_looks(path: Path) -> None:
    """No loop, socket, clock, file, environment, database or registry below the runtime."""
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & PURE_BANS


@pytest.mark.parametrize("path", modules(*BELOW_RUNTIME), ids=name_of)
def test_chance_and_time_are_handed_in(path: Path) -> None:
    """`random` is imported for the type of what is handed in; its functions, and the clock's, are never called."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = f"{node.value.id}.{node.attr}"
            assert not used.startswith("random.") or used == "random.Random", used
            assert used not in {"datetime.now", "datetime.utcnow", "date.today"}, used
        if isinstance(node, ast.ImportFrom):
            assert node.module != "random", "import the module, so that what is used of it shows"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert ast.unparse(node.func) != "random.Random", "a seeded generator is handed in, not made"


@pytest.mark.parametrize("path", modules("sim", "proof"), ids=name_of)
def test_a_simulation_touches_no_machine(path: Path) -> None:
    """What decides over a world is its seed: files and the real clock are for the command line and the hunt alone."""
    allowed = {"__main__.py": {"pathlib"}, "hunt.py": {"time"}}.get(path.name, set())
    assert not ({name.split(".")[0] for name in imported(path)} & PURE_BANS) - allowed


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_libraries_stay_in_their_adapters(path: Path) -> None:
    for name in imported(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or part_of(path) in homes, f"{name} belongs in {sorted(homes or ())}"


def test_adapters_do_not_know_one_another() -> None:
    siblings = {"store", "registry", "tasks"}
    for part in siblings:
        for path in modules(part):
            assert not parts_imported(path) & (siblings - {part}), name_of(path)
            assert "engine" not in parts_imported(path), name_of(path)


def test_every_part_has_its_place() -> None:
    assert set(ALLOWED) == EVERYTHING - {"py.typed", "py"}
