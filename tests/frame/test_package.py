"""What a user gets who installs the package: no dependency, types, one version, words for every name."""

import ast
import enum
import importlib
import importlib.resources
import inspect
import re
import subprocess
import sys
import tomllib
from types import FunctionType
from typing import Any

import pytest

import lastcall
from lastcall._version import __version__
from tests.frame.floorplan import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run_isolated(*flags: str, code: str) -> str:
    """Run code in a Python of its own that knows our sources and no environment variable."""
    prelude = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
    done = subprocess.run(
        [sys.executable, "-I", *flags, "-c", prelude + code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_the_standard_library_only() -> None:
    """`import lastcall`, with every framework installed, loads none of them."""
    loaded = run_isolated(
        code="before = set(sys.modules)\nimport lastcall\nprint(*set(sys.modules) - before)"
    )
    roots = {name.split(".")[0] for name in loaded.split()}
    assert roots - sys.stdlib_module_names == {"lastcall"}
    assert not any(
        name.startswith(("lastcall.asgi", "lastcall.cli", "lastcall.demo")) for name in loaded.split()
    )


def test_import_needs_nothing_installed() -> None:
    """The core works in a Python without any site-packages."""
    assert run_isolated("-S", code="import lastcall; print(lastcall.TaskManager.__name__)") == "TaskManager\n"


def test_import_starts_nothing() -> None:
    """Importing the package starts no thread, makes no loop and touches no signal handler."""
    code = """
import asyncio, signal, threading
before = {s: signal.getsignal(s) for s in signal.valid_signals()}, threading.enumerate()
import lastcall
assert ({s: signal.getsignal(s) for s in signal.valid_signals()}, threading.enumerate()) == before
assert asyncio._get_running_loop() is None
"""
    run_isolated("-W", "error", code=code)


def test_the_core_depends_on_nothing() -> None:
    """No requirement comes along unless an extra asks for it."""
    assert PROJECT["dependencies"] == []


def test_one_version() -> None:
    """The package says the version that the build reads."""
    assert lastcall.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]\d+|rc\d+|\.dev\d+)?", __version__)


def test_types_are_shipped() -> None:
    """A type checker believes the annotations of a package only beside this marker."""
    assert importlib.resources.files("lastcall").joinpath("py.typed").is_file()


def test_the_console_script_exists() -> None:
    """The command that the installation puts on the PATH finds its function."""
    module, _, name = PROJECT["scripts"]["lastcall"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def public_names() -> list[str]:
    """What `lastcall/__init__.py` re-exports, without the submodules that an import leaves there."""
    return [n for n, thing in vars(lastcall).items() if not n.startswith("_") and not inspect.ismodule(thing)]


def own_docstring(thing: Any) -> str | None:
    """The docstring somebody wrote: not inherited, and not the signature that dataclasses put there."""
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else getattr(thing, "__doc__", None)
    if inspect.isclass(thing) and doc is not None and doc.startswith(f"{thing.__name__}("):
        return None
    return doc


def test_the_face_re_exports_and_nothing_else() -> None:
    """Every name is handed on under its own name, which is how type checkers know that it is public."""
    source = (ROOT / "src" / "lastcall" / "__init__.py").read_text(encoding="utf-8")
    handed_on = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    names = [(alias.name, alias.asname) for node in handed_on for alias in node.names]
    assert [name for name, shown in names if name != shown] == []
    assert {name for name, _ in names if not name.startswith("_")} == set(public_names())


@pytest.mark.parametrize("name", public_names())
def test_public_name_is_documented(name: str) -> None:
    """Every public name says what it is for, and every public method of a public class too."""
    thing = getattr(lastcall, name)
    assert own_docstring(thing), f"lastcall.{name} has no docstring of its own"
    if inspect.isclass(thing) and not issubclass(thing, enum.Enum):
        silent = [
            member
            for member, value in vars(thing).items()
            if not member.startswith("_")
            and isinstance(value, property | staticmethod | classmethod | FunctionType)
            and not own_docstring(value)
        ]
        assert silent == [], f"public members of lastcall.{name} without a docstring"
