"""What the person at the screen has chosen. A view and a key make the next view, and perhaps something to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from lastcall.cli.top._model import Row

SHOWN = ("all", "jobs", "tasks")


class Key(StrEnum):
    """Keys that are no character."""

    UP = "up"
    DOWN = "down"
    ENTER = "enter"
    ESCAPE = "escape"
    TAB = "tab"
    BACKSPACE = "backspace"


class View(NamedTuple):
    """`needle`: rows without it are left out. `is_typing`: keys go into the needle. `selected`: by id, so that it stays
    the same work when rows come and go. `asking`: a cancel that waits for a yes. `message`: what became of the last."""

    shown: str = "all"
    needle: str = ""
    is_typing: bool = False
    selected: str | None = None
    asking: Row | None = None
    message: str = ""


class Quit(NamedTuple):
    """Leave the screen."""


class Cancel(NamedTuple):
    """Cancel this work."""

    row: Row


Action = Quit | Cancel | None


def visible(view: View, rows: Sequence[Row]) -> list[Row]:
    """The rows that the view lets through."""
    needle = view.needle.lower()
    return [
        row
        for row in rows
        if (view.shown == "all" or row.is_job == (view.shown == "jobs"))
        and (not needle or needle in " ".join((row.kind, row.id, row.name, row.status, row.what)).lower())
    ]


def press(view: View, key: str, rows: Sequence[Row]) -> tuple[View, Action]:
    """What a key makes of the view. `rows`: all there are."""
    if view.asking is not None:
        return _answer(view, key)
    if view.is_typing:
        return _type(view, key), None
    here = visible(view, rows)
    view = view._replace(message="")
    match key:
        case "q":
            return view, Quit()
        case Key.UP | "k":
            return _move(view, here, -1), None
        case Key.DOWN | "j":
            return _move(view, here, 1), None
        case Key.TAB:
            following = SHOWN[(SHOWN.index(view.shown) + 1) % len(SHOWN)]
            return view._replace(shown=following), None
        case "/":
            return view._replace(is_typing=True), None
        case Key.ESCAPE:
            return View(), None
        case "c":
            chosen = next((row for row in here if row.id == view.selected), None)
            if chosen is None:
                return view._replace(message="nothing is selected: choose with the arrows"), None
            return view._replace(asking=chosen), None
        case _:
            return view, None


def _answer(view: View, key: str) -> tuple[View, Action]:
    assert view.asking is not None
    row, view = view.asking, view._replace(asking=None)
    if key in ("y", "Y"):
        return view, Cancel(row)
    return view._replace(message="not cancelled"), None


def _type(view: View, key: str) -> View:
    match key:
        case Key.ENTER:
            return view._replace(is_typing=False)
        case Key.ESCAPE:
            return view._replace(is_typing=False, needle="")
        case Key.BACKSPACE:
            return view._replace(needle=view.needle[:-1])
        case _ if len(key) == 1 and key.isprintable():
            return view._replace(needle=(view.needle + key)[:100])
        case _:
            return view


def _move(view: View, rows: Sequence[Row], by: int) -> View:
    if not rows:
        return view._replace(selected=None)
    ids = [row.id for row in rows]
    if view.selected not in ids:
        return view._replace(selected=ids[0])
    at = min(max(ids.index(view.selected) + by, 0), len(ids) - 1)
    return view._replace(selected=ids[at])
