"""How many streams may be open at once, in all and for one client: whoever would be one too many is told so.

Who calls it: the face, around every answer that goes on and on. A client is its address; behind a proxy all may be one,
so the two limits are settings (`Access`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ._types import Scope


class TooManyReaders(Exception):
    """This client, or all together, read as many streams as they may."""


class Places:
    """The places. `most`: in all; `most_per_client`: for one address."""

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._taken: Counter[str] = Counter()

    @contextmanager
    def take(self, scope: Scope) -> Iterator[None]:
        """A place while the block lasts. Raises `TooManyReaders`."""
        client = str((scope.get("client") or ("",))[0])
        if self._taken[client] >= self._most_per_client:
            raise TooManyReaders(
                f"{self._most_per_client} streams are read from this address already; close one of them"
            )
        if self._taken.total() >= self._most:
            raise TooManyReaders(f"{self._most} streams are read already; try again later")
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
