"""Transcript: what was said in a conversation, as entries of a stream; who says it is a run.

Who calls it: each run of a conversation, before and after it asks the agent; `Conversation`, to show it. What it owns:
the form of the entries. What can go wrong: a run is started again after a crash. So it writes as a numbered producer:
its prompt and its answer stand there once, however often it says them, and an answer that stands there is its answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ..exceptions import UnknownStream
from ..jobs._codec import dump_plain, load_plain
from ..streams import Stream, Streams
from ..streams._port import Producer

_READ_AT_ONCE = 1000
_PROMPT, _ANSWER, _BRANCH = "prompt", "answer", "branch"


class Said(NamedTuple):
    """One turn of a conversation. `seq`: its last entry. `answered` False: it has not completed, or not yet."""

    turn: int
    run_id: str
    prompt: Any
    answer: Any
    answered: bool
    seq: int


class Transcript:
    """`streams`: gives where they are kept, when it is first asked for. `ttl_seconds`: how long unused ones are."""

    def __init__(self, queue: str, streams: Callable[[], Streams], ttl_seconds: int | None) -> None:
        self._queue = queue
        self._streams = streams
        self._ttl_seconds = ttl_seconds

    def stream(self, conversation: str) -> Stream:
        """The stream of a conversation, whether there is one or not."""
        return self._streams().open(f"agents/{self._queue}/{conversation}")

    async def prompt(self, conversation: str, turn: int, run_id: str, prompt: Any) -> None:
        """A turn begins."""
        entry = {"type": _PROMPT, "turn": turn, "run": run_id, "prompt": prompt}
        try:
            await self._say(conversation, 0, entry)
        except UnknownStream:  # the first turn of all
            await self._streams().create(self.stream(conversation).name, ttl_seconds=self._ttl_seconds)
            await self._say(conversation, 0, entry)

    async def answer(self, conversation: str, turn: int, run_id: str, answer: Any) -> None:
        """A turn has completed."""
        await self._say(conversation, 1, {"type": _ANSWER, "turn": turn, "run": run_id, "answer": answer})

    async def _say(self, conversation: str, number: int, entry: dict[str, Any]) -> None:
        plain = load_plain(dump_plain(entry, f"what is said in the conversation {conversation!r}"))
        producer = Producer(f"run {entry['run']}", 0, number)
        await self.stream(conversation).append_json(plain, producer=producer)

    async def branch(self, conversation: str, other: str, said: Said) -> None:
        """Another conversation that begins with this one up to a turn of it."""
        fork = await self.stream(conversation).fork(
            self.stream(other).name, after=said.seq, ttl_seconds=self._ttl_seconds
        )
        await fork.append_json({"type": _BRANCH, "from": conversation, "after": said.turn})

    async def read(self, conversation: str) -> list[Said]:
        """All turns that have begun, in order; none, if nothing was said yet."""
        turns: dict[int, Said] = {}
        after, stream = 0, self.stream(conversation)
        while True:
            try:
                page = await stream.read(after, _READ_AT_ONCE)
            except UnknownStream:
                return []
            for entry in page.entries:
                _apply(turns, entry.seq, json.loads(entry.data))
            if not page.entries or page.entries[-1].seq >= page.last:
                return [turns[turn] for turn in sorted(turns)]
            after = page.entries[-1].seq


def history_of(turns: list[Said], before: int | None = None) -> list[dict[str, Any]]:
    """The messages of the turns that have completed, as most libraries write them."""
    return [
        {"role": role, "content": content}
        for said in turns
        if said.answered and (before is None or said.turn < before)
        for role, content in (("user", said.prompt), ("assistant", said.answer))
    ]


def _apply(turns: dict[int, Said], seq: int, entry: Any) -> None:
    match entry:
        case {"type": "prompt", "turn": int(turn), "run": str(run_id), "prompt": prompt}:
            turns[turn] = Said(turn, run_id, prompt, None, False, seq)
        case {"type": "answer", "turn": int(turn), "run": str(run_id), "answer": answer} if turn in turns:
            if turns[turn].run_id == run_id:
                turns[turn] = turns[turn]._replace(answer=answer, answered=True, seq=seq)
        case {"type": "branch", "after": int(after)}:
            for turn in [turn for turn in turns if turn > after]:
                del turns[turn]
