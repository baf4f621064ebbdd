"""The answerer without a language model: it quotes what the files say, and says that it does no more than that."""

from __future__ import annotations

import asyncio
import re

from lastcall.agents import Turn
from lastcall.demo.passages import Library, Passage

WORDS_PER_SECOND = 40

_QUOTED = 3


class Quoter:
    """An agent for `AgentQueue`. Its search and its reading are steps, and what it says is streamed in one, too.

    >>> AgentQueue(Quoter(library), jobs=jobs)
    """

    def __init__(self, library: Library) -> None:
        self._library = library

    async def run(self, turn: Turn, question: str) -> str:
        turn.spend(tool_calls=1)
        found = await turn.step(self._search, question, name="search")
        around = []
        for at, passage in enumerate(found[:_QUOTED], start=1):
            turn.spend(tool_calls=1)
            around.append(await turn.step(self._read, passage, name=f"read {at} ({passage.file[-150:]})"))
        answer = "\n\n".join(_paragraphs(found, around))

        async def say() -> None:
            for word in re.findall(r"\S+\s*|\s+", answer):
                await turn.write(word)
                await asyncio.sleep(1 / WORDS_PER_SECOND)

        await turn.step(say, name="say")
        return answer

    def _search(self, question: str) -> list[Passage]:
        return self._library.search(question)

    def _read(self, passage: Passage) -> Passage:
        # A little before what was found, because a passage seldom begins where its words stand.
        return self._library.read(passage.file, max(1, passage.line - 2), 10) or passage


def _paragraphs(found: list[Passage], around: list[Passage]) -> list[str]:
    if not found:
        return ["No file says anything of that. (No language model was asked: the words were looked for.)"]
    told = [
        "No language model was asked. These passages of the files have most of the words of the question:"
    ]
    for passage in around:
        last = passage.line + passage.text.count("\n")
        quoted = "\n".join(f"    {line}" for line in passage.text.splitlines())
        told.append(f"{passage.file}, lines {passage.line} to {last}:\n{quoted}")
    also = [f"{passage.file}:{passage.line}" for passage in found[len(around) :]]
    if also:
        told.append(f"See also {', '.join(also)}.")
    return told
