"""The durable job: list the files, analyse each, compare them all. A file to copy from.

Whatever ends this process, the next one finds what was done and goes on from there: the listing and each file are
steps, and a completed step never runs again.
"""

from __future__ import annotations

import asyncio

from lastcall import TaskManager
from lastcall.demo.analysis import FileAnalysis, analyse_file
from lastcall.demo.corpus import Corpus, Skipped, Source, find_files, unquoted
from lastcall.demo.report import Report, build_report
from lastcall.jobs import Context, Jobs, Task

LISTING = "list files"
COMPARISON = "compare files"

_KEPT_SECONDS = 86_400.0


def declare(
    jobs: Jobs, manager: TaskManager, *, queue: str, limit: int, read_here: set[Source]
) -> Task[[str | None], Report]:
    """Declare the job on `jobs`: it analyses `limit` files at a time, and adds to `read_here` those it has read.

    analyse = declare(jobs, manager, queue="demo", limit=4, read_here=set())
    job = await analyse.submit("docs")
    report = await job.result()
    """

    async def read(source: Source) -> FileAnalysis | Skipped:
        # In a tracked thread of its own name: a shutdown that has to leave it behind can tell which file it was.
        analysis = await manager.run_in_thread(analyse_file, source, name=f"read {source.name}")
        read_here.add(source)
        return analysis

    @jobs.task(queue=queue, retention=_KEPT_SECONDS)
    async def analyse(ctx: Context, folder: str | None) -> Report:
        corpus = await ctx.step(list_files, folder, name=LISTING)
        numbered = enumerate(corpus.sources, start=1)
        total = len(corpus.sources)
        analysed: list[FileAnalysis | Skipped] = []
        if ctx.attempt == 1:  # a later one goes on from what was told
            await ctx.progress(0, total)

        async def read_on() -> None:
            for number, source in numbered:
                analysed.append(await ctx.step(read, source, name=step_name(number, source)))
                if source in read_here:  # and not remembered from an earlier run
                    await ctx.progress(len(analysed), total, source.name)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit, total)):
                group.create_task(read_on())
        return await ctx.step(build_report, corpus.root, [*corpus.skipped, *analysed], name=COMPARISON)

    return analyse


def list_files(folder: str | None) -> Corpus:
    """The listing is a step: files that come or go later are not of this analysis."""
    return find_files(None if folder is None else unquoted(folder))


def step_name(number: int, source: Source) -> str:
    """A name that is short and unique in the job, which a file's own need not be."""
    return f"file {number} ({source.name[-150:]})"
