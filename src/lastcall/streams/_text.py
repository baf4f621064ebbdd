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
    `stream.reset` takes back a whole stream. Everything else is passed over, also what has the type and not the form.

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
                    stream, text = _word(entry, "stream"), _word(entry, "text")
                    if stream is not None and text is not None:
                        self._pieces.setdefault(stream, []).append((entry.step, text))
                case "step.reset":
                    step = _word(entry, "step")
                    for name, pieces in self._pieces.items():
                        self._pieces[name] = [
                            piece for piece in pieces if piece[0] is None or piece[0] != step
                        ]
                case "stream.reset":
                    self._pieces.pop(_word(entry, "stream") or "", None)

    def text(self, stream: str) -> str:
        """The text of one stream as it stands."""
        return "".join(text for _, text in self._pieces.get(stream, ()))


def _word(entry: Entry, name: str) -> str | None:
    """A text in the entry's data. Anybody may write an entry of any type, and must not end those who read it."""
    told = json.loads(entry.data)
    word = told.get(name) if isinstance(told, dict) else None
    return word if isinstance(word, str) else None
