"""Who takes part, in which row, and which package it needs. Imports none of them."""

import importlib
from dataclasses import dataclass
from importlib.util import find_spec

from .contenders.base import Contender

FLOOR = "floor"


@dataclass(frozen=True)
class Entry:
    name: str
    module: str
    attribute: str
    package: str | None = None
    """The distribution without which there is nothing to measure; None for the standard library."""
    holds: bool = True
    """Whether it can hold a hundred thousand waiting tasks: the rows `memory` and `stop`."""
    spawns: bool = True
    ours: bool = False
    note: str = ""

    @property
    def installed(self) -> bool:
        if self.package is None:
            return True
        try:
            return find_spec(self.package) is not None
        except ValueError:  # a module that was blocked or made by hand has no spec
            return False

    def load(self) -> type[Contender]:
        found: type[Contender] = getattr(
            importlib.import_module(f"{__package__}.contenders.{self.module}"), self.attribute
        )
        return found


ENTRIES = (
    Entry(FLOOR, "plain", "Floor"),
    Entry("idiom (set + done-callback)", "plain", "Idiom"),
    Entry("asyncio.TaskGroup", "plain", "AsyncioTaskGroup"),
    Entry("anyio task group", "with_anyio", "AnyioTaskGroup", package="anyio", note="gives no results"),
    Entry("aiojobs", "with_aiojobs", "Aiojobs", package="aiojobs"),
    Entry("aiojobs limit=100", "with_aiojobs", "AiojobsLimited", package="aiojobs", holds=False),
    Entry(
        "starlette BackgroundTasks",
        "with_starlette",
        "StarletteBackgroundTasks",
        package="starlette",
        holds=False,
        note="one after another, makes no task",
    ),
    Entry("naive TaskManager", "naive", "Naive", note="never forgets"),
    Entry("lastcall TaskManager", "ours", "Manager", package="lastcall", ours=True),
    Entry("lastcall TaskGroup, alone", "ours", "StandaloneGroup", package="lastcall", ours=True),
    Entry("lastcall manager.group", "ours", "ManagerGroup", package="lastcall", ours=True),
    Entry(
        "lastcall group limit=100", "ours", "ManagerGroupLimited", package="lastcall", ours=True, holds=False
    ),
)

IMPORTS = (
    Entry("anyio", "", "", package="anyio"),
    Entry("aiojobs", "", "", package="aiojobs"),
    Entry("starlette.background", "", "", package="starlette"),
    Entry("lastcall", "", "", package="lastcall", ours=True),
)
"""The import row: the name is the module that is imported on top of asyncio."""


def entry(name: str) -> Entry:
    """The entry of that name; KeyError names the ones there are."""
    for candidate in ENTRIES:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no contender {name!r}; there are {[candidate.name for candidate in ENTRIES]}")
