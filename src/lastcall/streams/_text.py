"""TextView: what a reader shows of a log's text, with what was taken back taken back.

Who calls it: `job.text()`, tests, and whoever writes a client: this is the whole rule. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from ._log import Entry


class TextView:
    """The text of each stream of a log, entry by entry.

    `stream.text` adds to its stream. `step.reset` takes back what that step has written, because it runs again;
    `stream.reset` takes back a whole stream. Everything else is passed over.

        view = TextView()
        async for entries in follow(log):
            view.apply(entries)
            print(view.text("answer"))
    """

    def __init__(self) -> None:
        self._pieces: dict[str, list[tuple[str | None, str]]] = {}

    def apply(self, entries: Iterable[Entry]) -> None:
        """Take the next entries, in order."""
        for entry in entries:
            match entry.type:
                case "stream.text":
                    told = json.loads(entry.data)
                    self._pieces.setdefault(told["stream"], []).append((entry.step, told["text"]))
                case "step.reset":
                    step = json.loads(entry.data)["step"]
                    for name, pieces in self._pieces.items():
                        self._pieces[name] = [piece for piece in pieces if piece[0] != step]
                case "stream.reset":
                    self._pieces.pop(json.loads(entry.data)["stream"], None)

    def text(self, stream: str) -> str:
        """The text of one stream as it stands."""
        return "".join(text for _, text in self._pieces.get(stream, ()))
