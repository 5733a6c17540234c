"""What a release holds: the sdist builds everything, the wheel built from it runs everything, neither has more."""

import ast
import configparser
import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import dsfast

ROOT = Path(__file__).parents[2]
BUILD_SECONDS_MAX = 300  # the first build on a machine also downloads the compiler
UNTRACKED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "*.so")


@dataclass(frozen=True)
class Release:
    sdist: frozenset[str]  # paths below the top directory of the archive
    wheel: frozenset[str]
    metadata: "email.message.Message[str, str]"
    entry_points: configparser.ConfigParser


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Builds an sdist in a copy of the tree, in which stale results of a compiler lie about, and a wheel from it."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("out")
    shutil.copytree(ROOT, source, ignore=UNTRACKED)
    for stale in ("queue.c", "queue.cpython-311-x86_64-linux-gnu.so", "queue.html"):
        (source / "dsfast/_core" / stale).write_text("stale")
    build = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return opened(sdist, wheel)


def opened(sdist: Path, wheel: Path) -> Release:
    with tarfile.open(sdist) as archive:
        sources = frozenset(info.name.partition("/")[2] for info in archive.getmembers() if info.isfile())
    with zipfile.ZipFile(wheel) as archive:
        files = frozenset(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in files if name.endswith(".dist-info/METADATA"))
        (points,) = (archive.read(name).decode() for name in files if name.endswith(".dist-info/entry_points.txt"))
    entry_points = configparser.ConfigParser()
    entry_points.read_string(points)
    return Release(sources, files, email.message_from_string(metadata), entry_points)


def kernels() -> set[str]:
    return {path.stem for path in (ROOT / "dsfast/_core").glob("*.pyx")}


def package_files() -> set[str]:
    """What an installed package needs: everything in its tree but kernels' sources and what builds leave behind."""
    files = {path for path in (ROOT / "dsfast").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    built = {path for path in files if path.parent.name == "_core" and path.suffix not in {".py", ".pyi"}}
    return {str(path.relative_to(ROOT)) for path in files - built}


def test_setup_names_every_kernel() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    (named,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "KERNELS"
    )
    assert sorted(named) == sorted(kernels())


def test_every_kernel_has_a_stub() -> None:
    assert {path.stem for path in (ROOT / "dsfast/_core").glob("*.pyi")} == kernels()


def test_the_sdist_holds_the_sources_of_everything(release: Release) -> None:
    expected = package_files() | {f"dsfast/_core/{name}.pyx" for name in kernels()}
    expected |= {"setup.py", "pyproject.toml", "README.md", "LICENSE", "conftest.py"}
    expected |= {str(Path(__file__).relative_to(ROOT)), "benchmarks/bench_queue.py"}
    assert expected <= release.sdist


def test_the_sdist_holds_nothing_that_a_compiler_made(release: Release) -> None:
    made = (".c", ".so", ".html", ".pyc", ".o")
    assert [name for name in release.sdist if name.startswith("dsfast/") and name.endswith(made)] == []


def test_the_wheel_holds_every_file_and_kernel(release: Release) -> None:
    assert package_files() <= release.wheel
    assert {"dsfast/py.typed", *(f"dsfast/_core/{name}.pyi" for name in kernels())} <= release.wheel
    for name in kernels():
        assert any(file.startswith(f"dsfast/_core/{name}.") and file.endswith(".so") for file in release.wheel)


def test_the_wheel_holds_nothing_else(release: Release) -> None:
    package = {name for name in release.wheel if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in package} == {"dsfast"}
    assert [name for name in package if name.endswith((".pyx", ".c")) or "/test" in name] == []
    assert [name for name in package if name.startswith("dsfast/_core/") and name.endswith(".html")] == []


def test_the_metadata_says_what_the_package_is(release: Release) -> None:
    assert release.metadata["Name"] == "dsfast"
    assert release.metadata["Version"] == dsfast.__version__
    assert release.metadata["License-Expression"] == "Apache-2.0"
    assert release.metadata["Requires-Python"] == ">=3.11"
    assert set(release.metadata.get_all("Provides-Extra", [])) == {"test", "dev", "mysql"}


def test_the_entry_points_name_things_that_are_there(release: Release) -> None:
    groups = release.entry_points
    assert dict(groups["console_scripts"]) == {"dsfast": "dsfast.cli.main:main"}
    assert set(groups["dsfast.tasks"]) == {"shell", "python", "sleep", "noop"}
    for target in [*groups["console_scripts"].values(), *groups["dsfast.tasks"].values()]:
        module, _, name = target.partition(":")
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        defined = {getattr(node, "name", None) for node in ast.parse(source).body}
        assert name in defined, f"{target} is not defined"
