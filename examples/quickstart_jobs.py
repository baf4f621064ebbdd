"""A job that survives the process: stop it with Ctrl-C or kill -9, start it again, and it goes on where it was.

python examples/quickstart_jobs.py [folder]
"""

import asyncio
import sys
import time
from pathlib import Path

import lastcall
from lastcall.jobs import Context, Jobs

jobs = Jobs("sqlite:///quickstart_jobs.db")


def list_files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob("*.py"))


def count_lines(file: str) -> int:
    """A step: a plain function runs in a thread. Once it has returned, it is never called again for this job."""
    time.sleep(0.3)
    lines = Path(file).read_text(encoding="utf-8", errors="replace").count("\n")
    print(f"counted {file}: {lines}", flush=True)
    return lines


@jobs.task(retries=3)
async def analyse(ctx: Context, folder: str) -> int:
    files = await ctx.step(list_files, folder)
    total = 0
    for n, file in enumerate(files):
        total += await ctx.step(count_lines, file)
        await ctx.progress(n + 1, len(files))
    print(f"{total} lines in {folder}", flush=True)
    return total


async def main(folder: str) -> None:
    async with jobs.worker(concurrency=10):
        # The same key is the same job: started again, the program finds the one that it had begun.
        job = await analyse.options(key=folder).submit(folder)
        info = await job.info()
        print(f"job {job.id}: {info.status}, {info.progress or 'not begun'}", flush=True)
        await lastcall.current_shutdown().wait()


if __name__ == "__main__":
    lastcall.run(main(sys.argv[1] if len(sys.argv) > 1 else str(Path(asyncio.__file__).parent)))
