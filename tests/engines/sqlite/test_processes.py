"""Several processes on one file: opened at once, killed in the middle of commits, sharing the work."""

import asyncio
import json
from pathlib import Path

import pytest

from lastcall.engines.sqlite._schema import APPLICATION_ID, VERSION
from lastcall.jobs._rows import JobQuery, NewJob
from lastcall.jobs._state import JobStatus

from .support import Program, is_sound, opened, query

pytestmark = [pytest.mark.loops("asyncio"), pytest.mark.slow]


async def test_opened_at_once(tmp_path: Path) -> None:
    """Four processes open a file that does not exist, in the same moment: one schema, and everybody's job is in it."""
    path = tmp_path / "jobs.db"
    programs = [Program("open_at_once", path) for _ in range(4)]
    for program in programs:
        program.expect("ready")
    for program in programs:
        program.tell("go")
    for program in programs:
        program.expect("open")
    assert query(path, "PRAGMA user_version") == [(VERSION,)]
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    ids = {row[0] for row in query(path, "SELECT id FROM lastcall_job")}
    assert ids == {f"job-{program.pid}" for program in programs}
    for program in programs:
        program.tell("end")
        program.end()


@pytest.mark.parametrize("lines", [0, 3, 50, 300])
async def test_killed_in_the_middle_of_commits(tmp_path: Path, lines: int) -> None:
    """kill -9 while eight tasks submit pairs of jobs with fsync, after so many answers: each pair that was answered is
    there, no pair is half there, and the file is sound."""
    path = tmp_path / "jobs.db"
    with Program("submit_pairs", path, 1000) as program:
        program.expect("open")
        answered = [program.line() for _ in range(lines)]
        answered += program.kill().splitlines()[:-1]  # the last line may be cut
    assert "done" not in answered
    async with opened(path) as engine:
        ids = {row[0] for row in query(path, "SELECT id FROM lastcall_job")}
        assert {f"{pair}{side}" for pair in answered for side in "ab"} <= ids
        assert {id[:-1] for id in ids if id.endswith("a")} == {id[:-1] for id in ids if id.endswith("b")}
        await engine.submit([NewJob("later", "work", "[]")])
    assert is_sound(path)


async def test_work_is_shared(tmp_path: Path) -> None:
    """Three processes claim and finish what two others submit, all at once: every job is done, and none by two."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        workers = [Program("work", path, f"w{n}", 400) for n in range(3)]
        submitters = [Program("submit_pairs", path, 12) for _ in range(2)]
        for program in workers:
            program.expect("open")
            program.tell("go")
        for program in submitters:
            program.expect("open")
        for program in submitters:
            while program.line() != "done":
                pass
        # The workers go on until they count 400 jobs; the submitters have made 2 x 8 x 12 pairs of them.
        await engine.submit([NewJob(f"more-{n}", "work", "[]") for n in range(16)])
        done = [json.loads(await asyncio.to_thread(program.line)) for program in workers]
        ids = [row.id for row in await engine.find(JobQuery(limit=1000))]
        assert sorted(job for jobs in done for job in jobs) == sorted(ids)
        assert len(ids) == 400
        assert (await engine.overview()).counts == {("default", JobStatus.COMPLETED): 400}
        for program in workers + submitters:
            program.tell("end")
            program.end()


async def test_one_ends_while_another_goes_on(tmp_path: Path) -> None:
    """A process closes the file, and one is killed; the log of those that remain is left alone."""
    path = tmp_path / "jobs.db"
    async with opened(path) as engine:
        await engine.submit([NewJob("a", "work", "[]")])
        with Program("change", path) as ends, Program("change", path) as killed:
            ends.expect("open")
            killed.expect("open")
            for program, job_id in ((ends, "b"), (killed, "c")):
                program.tell(job_id)
                program.expect(job_id)
            ends.tell("")
            ends.end()
            killed.kill()
        await engine.submit([NewJob("d", "work", "[]")])
        assert [row.id for row in await engine.get(["a", "b", "c", "d"])] == ["a", "b", "c", "d"]
    assert is_sound(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["jobs.db"]
