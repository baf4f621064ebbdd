"""The test command counts honestly and believes no interpreter by its name."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.frame.floorplan import ROOT
from tests.support.loops import flavours_for

SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The modules `matrix` and `interpreters`, which stand beside each other as scripts do."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import interpreters
    import matrix

    return matrix, interpreters


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_shim_that_fails_is_no_interpreter(scripts, tmp_path: Path) -> None:
    """Version managers put a `python3.12` on the PATH that only prints that there is none."""
    _, interpreters = scripts
    assert interpreters.probe(write_program(tmp_path / "python3.12", "#!/bin/sh\nexit 127\n")) is None
    assert interpreters.probe(write_program(tmp_path / "liar", "#!/bin/sh\necho hello\n")) is None
    assert interpreters.probe(tmp_path / "missing") is None
    assert interpreters.probe(tmp_path) is None


def test_the_interpreter_at_hand_is_found(scripts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With nothing on the PATH and an empty home, the Python that runs us is still known."""
    _, interpreters = scripts
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = interpreters.find(SERIES)
    assert found is not None
    assert found.series == SERIES


def test_version_managers_are_searched_newest_first(scripts, monkeypatch, tmp_path: Path) -> None:
    """pyenv's versions are found without its shims, 3.12.10 before 3.12.9."""
    _, interpreters = scripts
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    for version in ("3.12.9", "3.12.10"):
        write_program(tmp_path / "versions" / version / "bin" / "python3.12", "#!/bin/sh\n")
    ours = [str(path) for path in interpreters.candidates("3.12") if tmp_path in path.parents]
    assert [name.split("/versions/")[1].split("/")[0] for name in ours] == ["3.12.10", "3.12.9"]


def test_each_loop_has_its_version(scripts) -> None:
    """A loop that the version at hand leaves to another one is run there; and the core everywhere, on each."""
    matrix, _ = scripts
    here = matrix.loops_at_hand(["3.12", "3.13"])
    jobs, core, cli = (f"tests/{folder}/test_it.py::test_it" for folder in ("jobs", "core", "cli"))
    others = [matrix.LOOPS["3.12"], matrix.LOOPS["3.13"]]
    assert [flavours_for(jobs, spec) for spec in (here, *others)] == [["asyncio"], ["eager"], ["uvloop"]]
    assert {"asyncio", "uvloop"} <= set(flavours_for(cli, here))
    assert {"asyncio", "uvloop"} <= set(flavours_for(core, here))
    assert all(set(flavours_for(core, spec)) == {"asyncio", "uvloop", "eager"} for spec in others)


@pytest.mark.parametrize("others", [[], ["3.12"]])
def test_without_the_version_of_a_loop_it_runs_here(scripts, others: list[str]) -> None:
    """On a machine without 3.13, or with `--only`, the version at hand leaves no loop out."""
    matrix, _ = scripts
    assert matrix.loops_at_hand(others) is None


def write_events(path: Path, *events: tuple[str, str]) -> Path:
    path.write_text("".join(json.dumps({"event": event, "test": test}) + "\n" for event, test in events))
    return path


def test_a_test_without_an_end_is_a_failure(scripts, tmp_path: Path) -> None:
    """The last line of a run that was taken down still tells the truth."""
    matrix, _ = scripts
    record = write_events(
        tmp_path / "record", ("began", "a"), ("passed", "a"), ("began", "b"), ("skipped", "b"), ("began", "c")
    )
    result = matrix.Result("3.12.1")
    matrix.count([record], result)
    assert (result.passed, result.failed, result.skipped) == (1, 1, 1)
    assert result.notes == ["hung or crashed, and ended the run: c"]


def test_the_closing_line_is_the_last(scripts, capsys: pytest.CaptureFixture[str]) -> None:
    """The sum over all versions stands at the very end, after the plain words for those not found."""
    matrix, _ = scripts
    matrix.print_summary(
        [matrix.Result("3.11.7", 3, 1, 2, 1.0), matrix.Result("3.12.1", 4, 0, 1, 2.0)], ["3.14"]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["CPython 3.14: not found, its tests did not run", "7 passed, 1 failed, 3 skipped"]


def copy_of_the_frame(folder: Path, test: str) -> Path:
    """A project with the real frame and one test file, on two workers in place of four, which start sooner."""
    for name in ("scripts", "tests/support"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "Makefile", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / name, folder / name)
    matrix = (folder / "scripts" / "matrix.py").read_text()
    assert matrix.count(WORKERS) == 1
    (folder / "scripts" / "matrix.py").write_text(matrix.replace(WORKERS, 'IN_PARALLEL = ("-n", "2"'))
    (folder / "tests" / "test_it.py").write_text(test)
    return folder


WORKERS = 'IN_PARALLEL = ("-n", "4"'
# Other people's plugins are most of a start, and none of them is at work here.
LEAN = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin"}


def matrix_command(*arguments: str) -> list[str]:
    return [sys.executable, "scripts/matrix.py", "--only", SERIES, *arguments]


def run_matrix(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(matrix_command(*arguments), cwd=folder, env=LEAN, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("test", "arguments", "code", "closing"),
    [
        ("def test_a():\n    pass", ["--", "-v"], 0, "1 passed, 0 failed, 0 skipped"),
        (
            "def test_a():\n    pass\ndef test_b():\n    assert 0",
            ["--", "-v"],
            1,
            "1 passed, 1 failed, 0 skipped",
        ),
        ("import os\ndef test_a():\n    os.abort()", [], 1, "0 passed, 1 failed, 0 skipped"),
        (
            "def teardown_function():\n    1 / 0\ndef test_a():\n    pass",
            ["--", "-v"],
            1,
            "0 passed, 1 failed, 0 skipped",
        ),
        ("import no_such_module", [], 1, "0 passed, 1 failed, 0 skipped"),
        ("", ["--", "-v"], 1, "0 passed, 0 failed, 0 skipped"),
    ],
    ids=["passes", "fails", "crashes", "fails at teardown", "cannot be imported", "nothing ran"],
)
def test_the_exit_code_is_honest(
    tmp_path: Path, test: str, arguments: list[str], code: int, closing: str
) -> None:
    """Whatever goes wrong, in lanes or in one plain run, the exit code and the closing line say so."""
    folder = copy_of_the_frame(tmp_path, test)
    done = run_matrix(folder, *arguments)
    assert done.stdout.splitlines()[-1] == closing, done.stdout + done.stderr
    assert done.returncode == code


def test_what_is_left_out_or_alone_is_there(scripts) -> None:
    """A folder that was renamed would be run everywhere, or one that is new nowhere else, and nobody would see it."""
    matrix, _ = scripts
    assert [folder for folder in (*matrix.ONCE, *matrix.ALONE) if not (ROOT / folder).is_dir()] == []


def test_arguments_are_handed_on(tmp_path: Path) -> None:
    """What stands after `--` goes to pytest."""
    folder = copy_of_the_frame(tmp_path, "def test_a():\n    pass\ndef test_b():\n    pass")
    done = run_matrix(folder, "--", "-k", "test_b")
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed, 0 skipped", done.stdout + done.stderr


# Many short sleeps: a signal that arrives just before one long sleep is only looked at after it.
STUCK = """
import pathlib, time
def test_a():
    pass
def test_b():
    pathlib.Path({fifo!r}).write_text("running")
    for _ in range(600):
        time.sleep(0.1)
"""


@pytest.mark.parametrize("arguments", [[], ["--", "-v"]], ids=["in lanes", "one plain run"])
def test_ctrl_c_ends_the_run(tmp_path: Path, arguments: list[str]) -> None:
    """Ctrl-C lets every pytest end, keeps what was counted, and leaves with the code of an interrupt."""
    os.mkfifo(tmp_path / "running")
    folder = copy_of_the_frame(tmp_path, STUCK.format(fifo=str(tmp_path / "running")))
    process = subprocess.Popen(
        matrix_command(*arguments),
        cwd=folder,
        env=LEAN,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    (tmp_path / "running").read_text()  # until the second test is running
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=50)
    assert process.returncode == 130, output
    assert "interrupted" in output
    if arguments:  # in lanes the first test may not have ended when the second runs
        assert output.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"


def make(folder: Path, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program is not None
    return subprocess.run(
        [program, *arguments], cwd=folder, env={"PATH": path}, capture_output=True, text=True
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that is the whole PATH: a shell, and whatever else a test puts there."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "touch", "echo"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    return tools


def test_make_says_when_there_is_no_python(tmp_path: Path, machine: Path) -> None:
    """A machine whose only Python is a broken shim and an old one gets a sentence, not a traceback."""
    write_program(machine / "python3.13", "#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    write_program(machine / "python3", "#!/bin/sh\nexit 1\n")
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = make(tmp_path, "test", path=str(machine))
    assert done.returncode != 0
    assert "No Python 3.11 or newer found; tried: python3.13" in done.stderr
    assert "command not found" not in done.stderr


def test_make_says_when_venv_is_missing(tmp_path: Path, machine: Path) -> None:
    """Debian's Python without its venv package is named together with what to install."""
    write_program(machine / "python3", '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = make(tmp_path, "test", path=str(machine))
    assert done.returncode != 0
    assert "python3 is new enough, but has no venv module" in done.stderr


def test_make_alone_is_help(tmp_path: Path, machine: Path) -> None:
    """A newcomer who types `make` learns the verbs, and nothing is installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = make(tmp_path, path=str(machine))
    assert done.returncode == 0
    assert "make test" in done.stdout
    assert not (tmp_path / ".venv").exists()
