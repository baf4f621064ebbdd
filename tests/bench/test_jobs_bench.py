"""The job benchmarks: they run to their end, say who is missing, and read a ledger as a person would."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.jobs import marks, program_floor, sqlite_floor
from bench.jobs.catalog import DEPLOY, SPEED, Setting, named
from bench.jobs.install_peers import REQUIREMENTS
from bench.jobs.marks import Line
from bench.jobs.report import tables
from bench.jobs.rows import Block, Goal
from bench.jobs.verdict import Facts, Reading, read
from bench.jobs.workers import kill_session, session_members

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 240
OLD, NEW = 100, 200
MARKS_EACH = 500


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


# --- the commands ---


@pytest.mark.bench
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_every_section_measures_lastcall_beside_its_floor_and_names_the_peers_that_are_not_there(
    tmp_path: Path,
) -> None:
    """A quick run without peers has figures for the floors and for lastcall, and a line for everybody else."""
    answer = tmp_path / "rows.json"
    done = run_bench("jobs", "--quick", "--json", str(answer))
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    rows = json.loads(answer.read_text(encoding="utf-8"))["rows"]
    assert {row["section"] for row in rows} == {"throughput", "latency", "memory", "million"}
    for row in rows:
        if row["ours"]:
            assert not row["problem"], row
        if not row["problem"]:
            assert 0 < row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"]
            assert row["floor_name"] and row["floor"] > 0
            assert row["durability"] or row["unit"] == "bytes"
    missing = {row["contender"]: row["problem"] for row in rows if row["problem"]}
    assert set(missing) == {setting.name for setting in SPEED if not setting.ours}
    assert all("not installed, not measured" in problem for problem in missing.values())
    assert all(name in done.stdout for name in missing)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
def test_a_job_survives_a_deploy_and_a_crash_with_the_promised_number_of_repeated_steps(
    tmp_path: Path,
) -> None:
    """TERM and KILL in the middle of a job, with a restart and with a second worker: only KILL repeats a step."""
    answer = tmp_path / "deploy.json"
    done = run_bench("deploy", "--quick", "--only", "lastcall", "--json", str(answer))
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    outcomes = json.loads(answer.read_text(encoding="utf-8"))["rows"]
    assert {(each["signal"], each["variant"]) for each in outcomes} == {
        (signal, variant) for signal in ("TERM", "KILL") for variant in ("restart", "second")
    }
    for outcome in outcomes:
        reading = outcome["reading"]
        assert reading["finished"], outcome
        assert reading["from_step"] > 0, outcome
        assert reading["steps_twice"] <= (1 if outcome["signal"] == "KILL" else 0), outcome
        if outcome["signal"] == "TERM":
            assert reading["told"].startswith("shutdown@"), outcome
            assert outcome["exit_seconds"] is not None, outcome


@pytest.mark.parametrize(
    ("arguments", "named_problem"),
    [
        (("jobs", "thruput"), "unknown section 'thruput'"),
        (("jobs", "--only", "sidekiq"), "unknown contender 'sidekiq'"),
        (("jobs", "--jobs", "0"), "--jobs must be at least 1"),
        (("deploy", "--only", "sidekiq"), "unknown contender 'sidekiq'"),
        (("deploy", "--signal", "HUP"), "invalid choice: 'HUP'"),
    ],
)
def test_a_typing_error_is_refused_by_name(arguments: tuple[str, ...], named_problem: str) -> None:
    """What does not exist ends in a usage message, not in a measurement."""
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert named_problem in done.stderr


def test_help_names_both_commands() -> None:
    """Whoever asks `python -m bench --help` learns of the job benchmarks and of the deploy test."""
    done = run_bench("--help")
    assert done.returncode == 0
    assert "`jobs`" in done.stdout and "`deploy`" in done.stdout


def test_an_unknown_peer_is_not_installed(tmp_path: Path) -> None:
    """The script that installs peers refuses a name that it does not know, before it makes anything."""
    script = ROOT / "bench" / "jobs" / "install_peers.py"
    folder = tmp_path / "peers"
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "sidekiq"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown peer 'sidekiq'" in done.stderr
    assert not folder.exists()


# --- the catalogue ---


def test_every_setting_can_be_installed_and_has_a_file() -> None:
    """A setting whose library nobody installs, or whose module is not there, would never be measured."""
    for setting in (*SPEED, *DEPLOY):
        assert setting.ours or setting.peer in REQUIREMENTS
        assert (ROOT / Path(*setting.module.split("."))).with_suffix(".py").exists()
        assert setting.durability
    for listed in (SPEED, DEPLOY):
        names = [setting.name for setting in listed]
        assert len(set(names)) == len(names)


def test_a_library_names_all_of_its_settings() -> None:
    """`--only huey` means each of Huey's settings, `--only huey-redis` just that one."""
    assert {setting.name for setting in named(SPEED, ["huey"])} == {"huey-sqlite", "huey-redis"}
    assert [setting.name for setting in named(SPEED, ["huey-redis"])] == ["huey-redis"]


def test_a_half_installed_environment_counts_as_missing(tmp_path: Path) -> None:
    """An environment that pip did not finish has no stamp, and is not measured."""
    setting = next(setting for setting in SPEED if setting.name == "huey-sqlite")
    (tmp_path / "huey" / "bin").mkdir(parents=True)
    (tmp_path / "huey" / "bin" / "python").touch()
    assert setting.problem(tmp_path) == "huey is not installed, not measured"
    (tmp_path / "huey" / ".installed").touch()
    assert setting.problem(tmp_path) == ""


def test_a_library_on_redis_needs_the_server_too(tmp_path: Path) -> None:
    """A peer that is there without the Redis server is reported for the server's sake."""
    setting = next(setting for setting in SPEED if setting.name == "arq")
    for name in ("arq", "redis"):
        assert "not installed" in setting.problem(tmp_path)
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "python").touch()
        (tmp_path / name / ".installed").touch()
    assert setting.problem(tmp_path) == ""


# --- the ledger and its verdict ---


def steps(worker: int, first: int, count: int, at: float) -> list[Line]:
    return [Line(at + n, worker + 1, worker, "step", str(first + n)) for n in range(count)]


def done_line(at: float, worker: int = NEW) -> Line:
    return Line(at, worker + 1, worker, "done", "30")


FACTS = Facts(old_worker=OLD, signalled_at=3.3, again_from=8.0, watched_seconds=60.0)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [*steps(OLD, 0, 4, 0.0), *steps(NEW, 4, 26, 8.5), done_line(40)],
            Reading("no", 4, 0.5, 4, 0, True, "resumed, no step twice"),
            id="handed over",
        ),
        pytest.param(
            [*steps(OLD, 0, 4, 0.0), *steps(NEW, 3, 27, 9.0), done_line(40)],
            Reading("no", 4, 1.0, 3, 1, True, "resumed"),
            id="the step in flight again",
        ),
        pytest.param(
            [*steps(OLD, 0, 4, 0.0), *steps(NEW, 0, 30, 9.0), done_line(40)],
            Reading("no", 4, 1.0, 0, 4, True, "restarted from scratch"),
            id="from scratch",
        ),
        pytest.param(
            steps(OLD, 0, 9, 0.0),
            Reading("no", 9, None, None, 0, False, "not started again within 60 s"),
            id="lost",
        ),
        pytest.param(
            [*steps(OLD, 0, 4, 0.0), *steps(NEW, 4, 2, 9.0)],
            Reading("no", 4, 1.0, 4, 0, False, "resumed, no step twice, not finished"),
            id="begun again and lost then",
        ),
        pytest.param(
            [*steps(OLD, 0, 30, 0.0), done_line(30, OLD)],
            Reading("no", 30, None, None, 0, True, "finished by the old worker"),
            id="nobody listened",
        ),
    ],
)
def test_the_verdict_is_read_from_the_ledger(lines: list[Line], expected: Reading) -> None:
    """Each way in which a job can go on, or not, has its verdict and its counts."""
    assert read(lines, FACTS) == expected


def test_what_a_job_heard_before_the_signal_is_no_news_of_the_signal() -> None:
    """Only what the old worker's job heard after the signal counts as being told."""
    early = Line(2.0, OLD, OLD, "told", "ValueError 2.0")
    heard = Line(3.35, OLD, OLD, "told", "CancelledError 3.3")
    other = Line(3.31, NEW, NEW, "told", "KeyError 0.1")
    assert read([*steps(OLD, 0, 4, 0.0), early], FACTS).told == "no"
    assert read([*steps(OLD, 0, 4, 0.0), early, other, heard], FACTS).told == "CancelledError@0.05s"


def test_no_line_of_the_ledger_is_torn_or_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads write at once; every step and every mark is there once."""
    monkeypatch.setenv(marks.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(marks, "_descriptors", {})

    def write(writer: int) -> None:
        for number in range(MARKS_EACH):
            marks.note("step", writer * MARKS_EACH + number)
            marks.mark(writer * MARKS_EACH + number, 0.0)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for descriptor in marks._descriptors.values():
        os.close(descriptor)
    expected = list(range(4 * MARKS_EACH))
    assert sorted(int(line.value) for line in marks.read_ledger(tmp_path)) == expected
    assert sorted(mark[0] for mark in marks.read_marks(tmp_path)) == expected
    assert marks.count_marks(tmp_path) == len(expected)


def test_a_line_that_is_being_written_is_not_read(tmp_path: Path) -> None:
    """A reader may come in the middle of a write; half a line is none yet."""
    (tmp_path / "ledger").write_text("1.5 7 7 step 0\n2.5 7 7 st", encoding="utf-8")
    assert marks.read_ledger(tmp_path) == [Line(1.5, 7, 7, "step", "0")]
    assert marks.read_ledger(tmp_path / "nowhere") == []


# --- rows ---


@pytest.mark.parametrize(
    ("goal", "ratio", "value", "met"),
    [
        (Goal("", ratio_at_least=0.5), 0.5, 1, True),
        (Goal("", ratio_at_least=0.5), 0.49, 1, False),
        (Goal("", ratio_at_most=1.25), 1.26, 1, False),
        (Goal("", value_at_most=2.0), 9, 2.0, True),
        (Goal("", value_at_most=2.0), 0.1, 2.1, False),
    ],
)
def test_a_goal_is_met_at_its_bound_and_missed_beyond(
    goal: Goal, ratio: float, value: float, met: bool
) -> None:
    """A goal that is missed must not be reported as met, nor the reverse."""
    assert goal.met(ratio, value) is met


def test_a_missed_goal_and_a_missing_library_are_both_said_plainly() -> None:
    """The table shows floor, value and ratio, the words NOT MET, and one line for all who share a reason."""
    block = Block("throughput", "Submit to done", "jobs/s")
    block.add("lastcall", [1000.0], [400.0], floor_name="raw", goal=Goal("≥ 0.5×", ratio_at_least=0.5))
    block.add_problem("huey-sqlite", "huey is not installed, not measured")
    block.add_problem("huey-redis", "huey is not installed, not measured")
    text = tables(block.rows)
    line = next(line for line in text.splitlines() if line.startswith("lastcall"))
    assert all(part in line for part in ("1,000", "400", "0.4", "raw", "≥ 0.5×: NOT MET"))
    assert "huey-sqlite, huey-redis: huey is not installed, not measured" in text


# --- the floors do what they claim ---


def test_the_smallest_program_commits_every_job_once(tmp_path: Path) -> None:
    """A floor that lost jobs, or ran one twice, would be no floor."""
    answer = asyncio.run(program_floor.submit_to_done(tmp_path / "jobs.db", 500, 50, 10))
    assert answer["rate"] > 0
    database = sqlite3.connect(tmp_path / "jobs.db")
    rows = database.execute("select status, attempt, count(*) from jobs group by 1, 2").fetchall()
    database.close()
    assert rows == [(sqlite_floor.DONE, 1, 500)]


def test_the_floors_sync_every_commit(tmp_path: Path) -> None:
    """The floors claim an fsync per commit: WAL and synchronous=FULL."""
    database = sqlite_floor.connect(tmp_path / "jobs.db")
    assert database.execute("pragma journal_mode").fetchone() == ("wal",)
    assert database.execute("pragma synchronous").fetchone() == (2,)
    database.close()


def test_measuring_claims_leaves_the_queue_as_it_was(tmp_path: Path) -> None:
    """Every timed claim finds the same queue, because what it took is given back."""
    path = tmp_path / "jobs.db"
    queue = sqlite_floor.Queue(path, 50, 20, batch=10)
    assert all(queue.claim() > 0 for _ in range(9))
    queue.close()
    database = sqlite3.connect(path)
    rows = database.execute("select task, status, count(*) from jobs group by 1, 2 order by 1").fetchall()
    database.close()
    assert rows == [(sqlite_floor.TASK, sqlite_floor.QUEUED, 50), ("unknown", sqlite_floor.QUEUED, 20)]


# --- processes ---


def test_killing_a_worker_kills_its_children_too() -> None:
    """A child that ignores SIGTERM, and whose parent is gone, is found by its session and killed."""
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
        assert process.wait(30) == 0
        kill_session(process.pid)
        # The child held the other end of the pipe: it ends when the child does.
        assert process.stdout.read() == ""
    assert session_members(process.pid) == []


def test_a_setting_of_ours_runs_in_this_interpreter() -> None:
    """lastcall is measured where it is installed, whatever environments the peers have."""
    ours = [setting for setting in (*SPEED, *DEPLOY) if setting.ours]
    assert ours
    for setting in ours:
        assert setting.python(Path("somewhere")) == sys.executable
        assert isinstance(setting, Setting) and not setting.problem(None)
