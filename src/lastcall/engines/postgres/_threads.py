"""Plain code that waits for the loop, in a thread of its own: a user's function, the verbs of streams.

Who calls it: `_transact`, `_streams`. Not the loop's own threads, which a program may have filled with jobs that wait
for this one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T]) -> _T:
    """What `work()` returns or raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def returned(value: _T) -> None:
        if not done.done():
            done.set_result(value)

    def raised(error: BaseException) -> None:
        if not done.done():
            # A future refuses to carry a StopIteration.
            is_stop = isinstance(error, StopIteration)
            done.set_exception(RuntimeError(f"the code raised {error!r}") if is_stop else error)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:
            tell(raised, error)
        else:
            tell(returned, value)

    def tell(how: Callable[..., None], what: object) -> None:
        try:
            loop.call_soon_threadsafe(how, what)
        except RuntimeError:
            return  # the loop is closed: there is nobody left to be told

    threading.Thread(target=run, name="lastcall-postgres-thread", daemon=True).start()
    return await done
