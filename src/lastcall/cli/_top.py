"""``lastcall top``: looks, draws, waits for a key, and again.

0: left with `q`, or printed once. 2: what could not be used. 130: Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.live import Live

from lastcall.cli._remote import Away, Refused, Remote, is_url
from lastcall.cli._say import Unusable, complain_of, write
from lastcall.cli.top._draw import draw
from lastcall.cli.top._keys import Keys
from lastcall.cli.top._model import Snapshot, Throughput
from lastcall.cli.top._sources import RemoteSource, Source, StoreSource, check_place
from lastcall.cli.top._view import Cancel, Quit, View, press
from lastcall.exceptions import LastcallError

DONE, UNUSABLE, INTERRUPTED = 0, 2, 130

# For files and pipes: nothing is cut off there that a search might look for.
_WIDE = 200


def run_top(place: str, *, once: bool, interval: float, as_json: bool, headers: Sequence[str]) -> int:
    """Show it until somebody leaves, and answer the exit code."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        check_place(place)
        if not once and not as_json and not sys.stdout.isatty():
            raise Unusable(
                "standard output is no terminal; --once prints one frame, --json one object for each"
            )
        source: Source = RemoteSource(Remote(place, headers)) if is_url(place) else StoreSource(place)
        try:
            if once or as_json:
                return _print(source, once=once, interval=interval, as_json=as_json)
            return _screen(source, interval)
        finally:
            source.close()
    except (Unusable, Away, Refused, LastcallError, ValueError) as error:
        complain_of(error)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # through the blocks that give the terminal back


def _print(source: Source, *, once: bool, interval: float, as_json: bool) -> int:
    with Keys() as keys:
        while True:
            snapshot = source.look()
            if not write(_json(snapshot) if as_json else _frame(snapshot)):
                return DONE
            if once:
                return DONE
            if "q" in keys.wait(interval):
                return DONE


def _json(snapshot: Snapshot) -> str:
    return json.dumps(snapshot.to_json(), ensure_ascii=False, default=str) + "\n"


def _frame(snapshot: Snapshot) -> str:
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False, width=None if known else _WIDE)
    with console.capture() as drawn:
        console.print(draw(snapshot, Throughput(), View(), rows=None, now=datetime.now()))
    return "".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines())


def _screen(source: Source, interval: float) -> int:
    console, throughput, view = Console(highlight=False), Throughput(), View()
    with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        snapshot = source.look()
        throughput.note(snapshot)
        while True:
            frame = draw(snapshot, throughput, view, rows=console.height, now=datetime.now())
            live.update(frame, refresh=True)
            pressed = keys.wait(interval)
            for key in pressed:
                view, action = press(view, key, snapshot.rows)
                match action:
                    case Quit():
                        return DONE
                    case Cancel(row):
                        view = view._replace(message=source.cancel(row))
                        pressed = []  # look again
            if not pressed:
                snapshot = source.look()
                throughput.note(snapshot)
