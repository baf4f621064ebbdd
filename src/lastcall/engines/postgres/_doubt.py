"""Transactions whose commit was asked for, and whose answer was lost: whether they were committed.

Who calls it: the database. What it owns: the slots, one for each transaction of this process that is under way.

Each transaction that has written leaves a random number in its slot before it commits. Afterwards the number is there
exactly if it was committed. Its own number, by which the server could be asked, does not say so: a server that crashes
forgets the numbers of transactions whose log had not reached the disk, and a replica that is promoted may never have
heard of them; both give them to others, who commit. Events were lost that way. It only says that a transaction is still
under way, which must be waited for.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from ._clock import NOW
from ._driver import Kind, kind_of
from ._store import Store

# Nobody asks for a transaction that is so old. Much longer than any doubt lasts.
_KEPT_SECONDS = 86_400.0

# A transaction that has written nothing has no number, and leaves nothing.
_LEAVE = f"""INSERT INTO lastcall.witness (slot, token, at) SELECT $2::bigint, $3::bigint, {NOW}
    WHERE pg_current_xact_id_if_assigned() IS NOT NULL
    ON CONFLICT (slot) DO UPDATE SET token = excluded.token, at = excluded.at
    RETURNING pg_current_xact_id()::text"""
_IS_UNDER_WAY = "SELECT pg_xact_status($1::text::xid8) = 'in progress'"
_IS_THERE = "SELECT EXISTS (SELECT FROM lastcall.witness WHERE slot = $1 AND token = $2)"
_FORGET = f"DELETE FROM lastcall.witness WHERE at < {NOW} - {_KEPT_SECONDS}"


class Witness(NamedTuple):
    """What a transaction has left. `xid`: its own number."""

    slot: int
    token: int
    xid: str


class Slots:
    """Those that are free; about as many as there ever were transactions at once."""

    def __init__(self) -> None:
        self._free: list[int] = []

    def take(self) -> int:
        return self._free.pop() if self._free else random.getrandbits(62)

    def give_back(self, slot: int) -> None:
        """Nobody is in doubt about the transaction that had it."""
        self._free.append(slot)


async def leave(store: Store, slot: int) -> Witness | None:
    """The last statement before a commit. None: nothing was written, and there is nothing to be in doubt about."""
    token = random.getrandbits(62)
    xid = await store.value(_LEAVE, store.now, slot, token)
    return None if xid is None else Witness(slot, token, xid)


async def was_committed(store: Store, witness: Witness) -> bool | None:
    """None: it is still under way. A reading, of two statements: the second sees what has ended before it."""
    try:
        if await store.value(_IS_UNDER_WAY, witness.xid):
            return None
    except Exception as error:
        # A number from the future: this server never saw it.
        if kind_of(error) is not Kind.CALLER:
            raise
    return bool(await store.value(_IS_THERE, witness.slot, witness.token))


async def forget(store: Store) -> None:
    """Delete what processes have left that are gone."""
    await store.rows(_FORGET, store.now)
