"""Starlette's own tests of its background tasks, run with ours in place of theirs.

They come from the source distribution of the installed version, got by pip once and kept in pytest's cache.
"""

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import starlette

ROOT = Path(__file__).parents[2]

# What deviates, and why. Anything else that fails, and any of these that passes, is a failure here.
DEVIATIONS = {
    "test_background.py": {
        "test_multi_tasks_failure_avoids_next_execution": "asserts the fault we mend: the first failing task drops the "
        "rest of the list; with ours it is reported, and the next ones run",
    },
    "middleware/test_base.py": {
        "test_run_background_tasks_raise_exceptions": "asserts that a failing task fails the call, which has been "
        "answered long before; with ours the manager reports it, and the call ends well",
    },
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest) -> Path:
    """The unpacked source distribution."""
    cache = request.config.cache
    assert cache is not None
    folder = cache.mkdir("starlette-sdist")
    unpacked = folder / f"starlette-{starlette.__version__}"
    if not (unpacked / "tests").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            "starlette",
            "-d",
            str(folder),
        ]
        command.append(f"starlette=={starlette.__version__}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"pip could not get Starlette's sources:\n{done.stderr}"
        with tarfile.open(next(folder.glob(f"starlette-{starlette.__version__}.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    assert (unpacked / "tests" / "test_background.py").is_file(), "this version of Starlette ships no tests"
    return unpacked


@pytest.mark.parametrize("mode", ["classes", "tracked"])
@pytest.mark.parametrize("file", DEVIATIONS)
def test_starlettes_tests_pass_with_ours(upstream: Path, tmp_path: Path, mode: str, file: str) -> None:
    """All of them pass under asyncio, apart from those that assert the fault we mend."""
    results = tmp_path / "results.xml"
    (tmp_path / "empty.ini").write_text("[pytest]\n")
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(upstream)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "anyio"]
    command += ["-p", "upstream_plugin", "-c", str(tmp_path / "empty.ini"), f"--rootdir={upstream}"]
    command += ["-k", "not trio", f"--junitxml={results}", f"tests/{file}"]  # lastcall is for asyncio
    done = subprocess.run(
        command,
        cwd=upstream,
        # Without autoload: every plugin that happens to be installed is most of a start.
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "UPSTREAM_MODE": mode,
            "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{path}",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert results.exists(), done.stdout + done.stderr
    cases = list(ElementTree.parse(results).iter("testcase"))
    failed = {case.get("name", "").partition("[")[0] for case in cases if case.find("failure") is not None}
    errors = [case.get("name") for case in cases if case.find("error") is not None]
    assert len(cases) > 3 and not errors, done.stdout
    assert failed == DEVIATIONS[file].keys(), done.stdout
