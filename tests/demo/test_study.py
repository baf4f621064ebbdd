"""One analysis as a durable job: what its steps store, and whatever the files are called."""

import os
from pathlib import Path
from random import Random

import pytest

from lastcall import TaskManager
from lastcall.demo.analysis import FileAnalysis, analyse_file
from lastcall.demo.app import PAYLOAD_BYTES_MAX
from lastcall.demo.corpus import Corpus, Skipped, find_files
from lastcall.demo.report import Report, build_report
from lastcall.demo.study import Study
from lastcall.engines.sqlite import SqliteEngine
from lastcall.jobs import Jobs
from lastcall.jobs._codec import ValueCodec

pytestmark = pytest.mark.loops("asyncio")


def store(tmp_path: Path) -> Jobs:
    return Jobs(SqliteEngine(str(tmp_path / "demo.db")), max_payload_bytes=PAYLOAD_BYTES_MAX)


async def study(path: Path, tmp_path: Path) -> Study:
    """Analyse `path` to the end."""
    async with TaskManager() as manager, store(tmp_path) as jobs:
        study = Study(path, jobs, manager, limit=3)
        await study.begin()
        async with jobs.worker(queues=[study.queue]):
            await study.follow()
    return study


def unpleasant(folder: Path) -> Path:
    """Files whose names are no good as names of steps, or as JSON, or alike when they are printed."""
    folder.mkdir()
    names = [
        b"~tilde",
        b"notes #2",
        b"notes",
        b"bad\x01",
        b"bad\x02",
        b"\xff\xfe",
        b"a" * 250,
        b" ",
        b"\n",
        b"%20",
    ]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(folder), name), "w") as file:
            file.write(f"The harbour master of port {number} keeps a ledger of every vessel.\n")
    return folder


async def test_names_of_files_are_never_in_the_way(tmp_path: Path) -> None:
    """Names with marks, control characters, bytes that are no text, or of extreme length: each file is a step."""
    found = await study(unpleasant(tmp_path / "texts"), tmp_path)
    assert found.report is not None, found.error
    assert len(found.report.files) == len(found.read_here) == 10
    assert found.progress() == {"state": "done", "done": 10, "of": 10, "latest": ""}


async def test_a_folder_itself_may_have_any_name(tmp_path: Path) -> None:
    """Its path is an argument of the job, and names the queue."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff #2"))
    folder.mkdir()
    (folder / "a.md").write_text("# Title")
    found = await study(folder, tmp_path)
    assert found.report is not None, found.error
    assert [file.name for file in found.report.files] == ["a.md"]


async def test_an_empty_folder_is_analysed_too(tmp_path: Path) -> None:
    """No file, no step of a file, and still a report."""
    (tmp_path / "texts").mkdir()
    found = await study(tmp_path / "texts", tmp_path)
    assert found.report is not None
    assert found.report.files_found == 0


async def test_a_file_with_very_many_definitions_can_be_stored(tmp_path: Path) -> None:
    """What is kept of it is more than a step may store by default."""
    path = tmp_path / "many.py"
    path.write_text("".join(f"def f{number}():0\n" for number in range(30_000)))
    found = await study(path, tmp_path)
    assert found.report is not None, found.error
    assert found.report.definitions == {"function": 30_000}


async def test_of_complete_analyses_one_only_is_kept(tmp_path: Path) -> None:
    """Run after run on one folder: the store does not grow."""
    folder = unpleasant(tmp_path / "texts")
    for _ in range(3):
        last = await study(folder, tmp_path)
    async with store(tmp_path) as jobs:
        (job,) = await jobs.find(queue=last.queue)
    assert job.result["files_found"] == 10


async def test_a_cancelled_analysis_ends_with_its_reason(tmp_path: Path) -> None:
    """Somebody cancels the job from outside before it has begun: whoever follows it hears so."""
    async with TaskManager() as manager, store(tmp_path) as jobs:
        study = Study(unpleasant(tmp_path / "texts"), jobs, manager, limit=1)
        await study.begin()
        (info,) = await jobs.find(queue=study.queue)
        await jobs.job(info.id).cancel()
        await study.follow()
    assert study.state == "failed"
    assert "was cancelled" in str(study.error)


def test_what_the_steps_return_survives_json(tmp_path: Path) -> None:
    """Listing, analyses of texts and of rubbish, and the report are read back equal to what was stored."""
    folder = unpleasant(tmp_path / "texts")
    random = Random(11)
    for number in range(60):
        data = bytes(random.choices(b"# ab\n\n.=-:()'\"\xc3\xa4\xff", k=random.randrange(3000)))
        (folder / f"{number}{random.choice(['.py', '.md', '.rst', ''])}").write_bytes(data)
    (folder / "picture").write_bytes(bytes(range(256)))
    (folder / "code.py").write_text(
        '"""The module \\x1b[31m paints \\ud800 the whole terminal red, and every window beside it."""\n'
        "class A:\n    async def f(self): ...\n"
    )
    (folder / "words.txt").write_text(" ".join(f"word{n} and{n}" for n in range(5000)))

    corpus = find_files(folder)
    results = [analyse_file(source) for source in corpus.sources]
    assert {type(result) for result in results} == {FileAnalysis, Skipped}
    for annotation, value in (
        (Corpus, corpus),
        (Report, build_report(corpus.root, results)),
        *((FileAnalysis | Skipped, result) for result in results),
    ):
        codec = ValueCodec(annotation, "a value")
        assert codec.load(codec.dump(value)) == value


def test_what_is_stored_of_a_text_is_bounded(tmp_path: Path) -> None:
    """Of a text of 1 MiB with a hundred thousand different words some kilobytes are kept."""
    path = tmp_path / "words.txt"
    path.write_text(" ".join(f"w{n:x}z" for n in range(150_000)))
    (source,) = find_files(path).sources
    assert len(ValueCodec(FileAnalysis | Skipped, "a value").dump(analyse_file(source))) < 20_000
