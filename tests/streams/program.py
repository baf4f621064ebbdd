"""A process that writes to a stream in an SQLite file as a numbered producer: `program.py <path> <from> <to>`.

It says each number that was answered, and may be killed at any time: whoever starts it again begins with the first
number that was not answered, which may have been written all the same.
"""

import asyncio
import sys

from lastcall.engines.sqlite import SqliteEngine
from lastcall.streams import Producer, Streams


async def main(path: str, begin: int, end: int) -> None:
    engine = SqliteEngine(path)
    await engine.open()
    stream = await Streams(engine.streams).create("s")
    for number in range(begin, end):
        await stream.append_json(number, [number], producer=Producer("p", 0, number))
        print(number)
    await stream.close()
    await engine.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
