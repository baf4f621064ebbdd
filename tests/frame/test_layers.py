"""Imports go up the floor plan of ARCHITECTURE.md only, and each framework enters at one door."""

import sys
from graphlib import CycleError, TopologicalSorter

from tests.frame.floorplan import PACKAGE, ROOT, Import, imports, modules, place, planned

# What may be imported beside the standard library, by the entry of the plan. Nothing else, nowhere else.
THIRD_PARTY = {
    "lastcall.starlette": {"starlette"},
    "lastcall.fastapi": {"fastapi"},
    "lastcall.jobs._codec": {"pydantic", "pydantic_core"},
    "lastcall.jobs._ids": {"uuid_utils"},
    "lastcall.jobs._scheduler": {"cronsim"},
    "lastcall.engines.postgres._driver": {"asyncpg"},
    "lastcall.engines.postgres._within_psycopg": {"psycopg"},
    "lastcall.engines.postgres._within_sqlalchemy": {"sqlalchemy"},
    "lastcall.agents._langgraph": {"langchain_core", "langgraph"},
    "lastcall.agents._pydantic_ai": {"pydantic_ai"},
    "lastcall.agents._openai": {"openai"},
    "lastcall.agents._openai_agents": {"agents", "openai"},
    "lastcall.otel": {"opentelemetry"},
    "lastcall.prometheus": {"prometheus_client"},
    "lastcall.dispatch.celery": {"billiard", "celery", "kombu"},
    "lastcall.dispatch.rq": {"redis", "rq"},
    "lastcall.demo": {"fastapi", "pydantic", "pydantic_ai", "rich", "uvicorn"},
    "lastcall.cli": {"rich", "typer", "uvicorn", "yaml"},
}

MODULES = modules()
PLAN = planned((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
IMPORTS = [found for name, path in MODULES.items() for found in imports(name, path, set(MODULES))]


# The command can say what to install only if its entry point itself needs nothing installed; and
# `lastcall demo` brings in the service only when it is asked for.
LATE_DOORS = "lastcall.cli"


def ours() -> list[Import]:
    return [found for found in IMPORTS if found.root == PACKAGE]


def running() -> list[Import]:
    """Our own imports that are carried out: a name that only a type checker reads makes no dependency."""
    return [found for found in ours() if not found.for_types]


def test_the_plan_names_every_module() -> None:
    """A new file has its place on the map before it is merged."""
    assert [name for name in MODULES if place(name, PLAN) is None] == []


def test_every_module_of_the_plan_exists() -> None:
    """The map names nothing that is not there."""
    assert [name for name in PLAN if name not in MODULES] == []


def test_imports_go_up() -> None:
    """A module that imports what stands below it turns the plan upside down."""
    down = []
    for found in running():
        importer, target = place(found.module, PLAN), place(found.target, PLAN)
        if importer is None or target is None or PLAN.index(target) > PLAN.index(importer):
            down.append(str(found))
    assert down == []


def test_no_import_cycle() -> None:
    """Inside one entry of the plan the order is free, but a cycle is a cycle."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in running():
        if found.target != found.module:
            graph[found.module].add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("import cycle: " + " > ".join(error.args[1])) from None


def test_no_import_of_ours_inside_a_function() -> None:
    """An import inside a function hides a cycle; the cycle is what must go."""
    hidden = [found for found in ours() if found.in_function and place(found.module, PLAN) != LATE_DOORS]
    assert [str(found) for found in hidden] == []


def test_each_framework_has_one_door() -> None:
    """The core and the ASGI layer need the standard library only; a framework enters by its own file."""
    strangers = []
    for found in IMPORTS:
        allowed = THIRD_PARTY.get(place(found.module, PLAN) or "", set())
        if found.root != PACKAGE and found.root not in sys.stdlib_module_names | allowed:
            strangers.append(str(found))
    assert strangers == []


def test_the_plan_is_read_in_order() -> None:
    """A folder's own line comes below its files, and the package below the core that it re-exports."""
    listing = "  a.py  x\n  _core/   y\n    _b.py  z\n                a second line\n  asgi/  w\n"
    page = f"## Layout\n```\nsrc/lastcall/\n{listing}```\n"
    assert planned(page) == [
        "lastcall._version",
        "lastcall.a",
        "lastcall._core._b",
        "lastcall._core",
        "lastcall",
        "lastcall.asgi",
        "lastcall.__main__",
    ]


def test_every_kind_of_import_is_seen(tmp_path) -> None:
    """Relative, aliased, type-only and hidden imports all count."""
    source = tmp_path / "_x.py"
    source.write_text(
        "from . import _y\nfrom .. import exceptions as e\nfrom ._y import name\n"
        "if True:\n    import lastcall.asgi\n"
        "def f():\n    from lastcall._core import _y\nif TYPE_CHECKING:\n    from . import _y\n"
    )
    known = {"lastcall._core._y", "lastcall.exceptions", "lastcall.asgi"}
    found = imports("lastcall._core._x", source, known)
    assert [(i.target, i.in_function, i.for_types) for i in found] == [
        ("lastcall._core._y", False, False),
        ("lastcall.exceptions", False, False),
        ("lastcall._core._y", False, False),
        ("lastcall.asgi", False, False),
        ("lastcall._core._y", True, False),
        ("lastcall._core._y", False, True),
    ]
