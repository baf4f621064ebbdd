"""``lastcall move``: the jobs of a SQLite file, with all that belongs to them, into PostgreSQL.

Who calls it: the command. The order of a move is text in `_Mover.run`; what each engine does of it is in
`engines.sqlite._departure` and `engines.postgres._arrival`. It may be killed anywhere and run again: the file stays
closed, and what has arrived is found by its keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from lastcall.cli._load import check_file
from lastcall.cli._say import Unusable, complain, write, write_json
from lastcall.cli._schema import shown
from lastcall.engines._carried import TABLES, Key, Row, Table
from lastcall.engines.sqlite import SqliteEngine
from lastcall.engines.sqlite._departure import Departure
from lastcall.engines.sqlite._moved import MOVED, MOVING, Move
from lastcall.exceptions import JobError
from lastcall.jobs import Engine, open_engine

DONE, NOT_NOW, UNUSABLE = 0, 1, 2

_TELL_SECONDS = 1.0


class Wanted(NamedTuple):
    """What was typed."""

    source: str
    target: str
    batch: int = 1000
    dry_run: bool = False
    undo: bool = False
    as_json: bool = False


class Refused(Exception):
    """The state of a store does not allow it now."""


class Sum(NamedTuple):
    """What of a table is in both stores: how many rows, and a checksum over all of them."""

    rows: int
    checksum: str


def run_move(wanted: Wanted) -> int:
    """Carry it out, and answer the exit code."""
    try:
        return asyncio.run(_run(wanted))
    except Refused as error:
        complain(str(error))
        return NOT_NOW
    except Unusable as error:
        complain(str(error), error.details)
    except JobError as error:
        complain(str(error))
    return UNUSABLE


async def _run(wanted: Wanted) -> int:
    source, target = _engine(wanted.source), _engine(wanted.target)
    if not isinstance(source, SqliteEngine):
        raise Unusable("jobs are moved from SQLite only: lastcall move sqlite:///FILE postgresql://...")
    # Its driver is an extra of its own; who has such an engine has it.
    if not type(target).__module__.startswith("lastcall.engines.postgres"):
        raise Unusable("jobs are moved to PostgreSQL only: lastcall move sqlite:///FILE postgresql://...")
    mover = _Mover(source, target, wanted)
    try:
        return await (mover.undo() if wanted.undo else mover.run())
    finally:
        await mover.leave()


def _engine(url: str) -> Engine:
    try:
        return open_engine(url)
    except JobError as error:
        raise Unusable(str(error)) from None


class _Mover:
    def __init__(self, source: SqliteEngine, target: Any, wanted: Wanted) -> None:
        self._source = source
        self._target = target
        self._wanted = wanted
        self._file: Departure | None = None
        self._arrival: Any = None
        self._told_at = time.monotonic()
        self._place = _named(target)

    async def run(self) -> int:
        """Look at both, close the file, carry over, compare, open the new place, and say so in the old one."""
        move = await self._begun()
        file = self._file
        assert file is not None
        if move is not None and move.state == MOVED:
            return self._report(move, None, "was moved before; nothing is left to do")
        self._arrival = await self._at_target(move.id if move is not None else str(uuid4()))
        place = await self._arrival.look()
        if self._wanted.dry_run:
            return self._rehearse(file, move)
        if move is None:
            move = self._close(file)
        if place.name == "ARRIVED":  # it was killed right before the last line
            file.set_moved()
            return self._report(move, None, "was moved before, and says so now")
        await self._arrival.begin()
        for table in TABLES:
            await self._carry(file, table)
        sums = {table.name: await self._compare(file, table) for table in TABLES}
        await self._arrival.finish()
        file.set_moved()
        return self._report(move, sums, "was moved")

    async def undo(self) -> int:
        """Give up a move that is not done."""
        move = await self._begun()
        file = self._file
        assert file is not None
        if move is None:
            raise Refused(f"no move of {self._source.path!r} has begun; there is nothing to undo")
        self._arrival = await self._at_target(move.id)
        place = await self._arrival.look()
        if move.state == MOVED or place.name == "ARRIVED":
            raise Refused(
                f"the jobs of {self._source.path!r} have arrived at {move.target}, and may have run there since;"
                " that is not undone"
            )
        if place.name == "UNDER_WAY":
            await self._arrival.drop()
        file.reopen()
        told = f"{self._source.path} is open again; nothing was moved"
        if self._wanted.as_json:
            write_json({"state": "undone", "source": self._source.path, "target": move.target})
        else:
            write(told + "\n")
        return DONE

    async def leave(self) -> None:
        if self._file is not None:
            self._file.leave()
        if self._arrival is not None:
            await self._arrival.leave()

    # --- its parts -------------------------------------------------------------------------------------

    async def _begun(self) -> Move | None:
        """The move that has begun or is done. The file is brought to this version's schema, if nothing has begun."""
        path = self._source.path
        check_file(path)
        file = self._file = Departure(path)
        move = file.move()
        if move is None and not self._wanted.dry_run and not self._wanted.undo:
            await self._make_ready(file)
        if not file.is_current():
            what = "finish with the lastcall that began it" if move else "run `lastcall db migrate` first"
            raise Unusable(f"the schema of {path!r} is that of an older lastcall; {what}")
        if move is not None and move.target != self._place:
            raise Refused(
                f"the jobs of {path!r} are being moved, or were moved, to {move.target}, and not to {self._place}"
            )
        return move

    async def _make_ready(self, file: Departure) -> None:
        if file.is_current() and (alive := file.alive()):
            raise Refused(_at_work(file.path, alive))
        await self._source.open()
        try:
            # Those who have died leave their jobs to the next worker, wherever that is.
            await self._source.rescue("lastcall move")
        finally:
            await self._source.close()

    async def _at_target(self, move_id: str) -> Any:
        from lastcall.engines.postgres._arrival import Arrival

        arrival = Arrival(self._target.address, self._target.schema, move_id)
        self._move_id = move_id
        await arrival.connect()
        return arrival

    def _close(self, file: Departure) -> Move:
        move = Move(self._move_id, MOVING, self._place, 0.0, 0.0)
        if alive := file.close(move):
            raise Refused(_at_work(file.path, alive))
        closed = file.move()
        assert closed is not None
        return closed

    def _rehearse(self, file: Departure, move: Move | None) -> int:
        counts = {table.name: file.count(table) for table in TABLES}
        alive = file.alive()
        if self._wanted.as_json:
            told = {"state": "dry run", "source": file.path, "target": self._place, "rows": counts}
            write_json(told | {"workers": alive, "resumed": move is not None})
        else:
            listed = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
            write(f"would move from {file.path} to {self._place}: {listed}\n")
        if alive:
            raise Refused(_at_work(file.path, alive))
        return DONE

    async def _carry(self, file: Departure, table: Table) -> None:
        after: Key | None = await self._arrival.last(table)
        total = file.count(table)
        carried = 0
        while rows := file.rows(table, after, self._wanted.batch):
            await self._arrival.put(table, rows)
            after = table.key_of(rows[-1])
            carried += len(rows)
            self._progress(f"{table.name}: {carried} of {total}")
        if carried:
            self._progress(f"{table.name}: {total}", last=True)

    async def _compare(self, file: Departure, table: Table) -> Sum:
        """Row by row; a checksum tells more people, and a difference one place."""
        digest = hashlib.sha256()
        count = 0
        async for here, there in self._both(file, table):
            if here != there:
                raise Unusable(
                    f"what has arrived of the table {table.name!r} is not what was sent, at its row {count + 1}:"
                    f" {there!r} and not {here!r}. Nothing was switched over; with --undo the file is used again"
                )
            digest.update(repr(here).encode())
            count += 1
        return Sum(count, digest.hexdigest())

    async def _both(self, file: Departure, table: Table) -> AsyncIterator[tuple[Row | None, Row | None]]:
        after: Key | None = None
        while True:
            here = [tuple(row) for row in file.rows(table, after, self._wanted.batch)]
            there = await self._arrival.rows(table, after, self._wanted.batch)
            for place in range(max(len(here), len(there))):
                yield (
                    here[place] if place < len(here) else None,
                    there[place] if place < len(there) else None,
                )
            if not here:
                return
            after = table.key_of(here[-1])

    def _progress(self, words: str, *, last: bool = False) -> None:
        """On standard error, now and then: a million jobs take minutes."""
        now = time.monotonic()
        if last or now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            sys.stderr.write(f"{words}\n")

    def _report(self, move: Move, sums: dict[str, Sum] | None, words: str) -> int:
        told: dict[str, Any] = {"state": MOVED, "source": self._source.path, "target": move.target}
        if sums is not None:
            told["tables"] = {name: table._asdict() for name, table in sums.items()}
        if self._wanted.as_json:
            write_json(told)
            return DONE
        write(f"{self._source.path} {words}: {move.target}\n")
        for name, table in (sums or {}).items():
            if table.rows:
                write(f"  {name:<16} {table.rows:>10} rows, the same in both: {table.checksum[:16]}\n")
        return DONE


def _named(target: Any) -> str:
    """As people may use it as a URL, but for the password."""
    schema = getattr(target, "schema", "lastcall")
    return shown(target) if schema == "lastcall" else f"{shown(target)}?schema={quote(schema)}"


def _at_work(path: str, alive: list[str]) -> str:
    return f"workers are at work on {path!r}: {', '.join(alive)}. Stop them, and run it again; nothing was changed"
