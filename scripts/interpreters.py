"""Finds the CPython versions of this machine, wherever their installer put them.

Nothing is believed by its name: version managers leave shims on the PATH that exist and fail, and Debian
ships a Python that cannot make environments. An interpreter counts when it ran and said what it is.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROBE_SECONDS = 20
PROBE = """
import platform, sys
import ensurepip, venv
print(platform.python_implementation(), platform.python_version(), sys.version_info.releaselevel, sep="|")
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs, as it described itself."""

    path: Path
    version: str  # "3.12.1"

    @property
    def series(self) -> str:
        """The version without its last part: "3.12"."""
        return series_of(self.version)


def series_of(version: str) -> str:
    """The series of a version: "3.12" for "3.12.1"."""
    return ".".join(version.split(".")[:2])


def find(series: str) -> Interpreter | None:
    """The first released CPython of this series that really runs and can make environments."""
    for path in candidates(series):
        found = probe(path)
        if found is not None and found.series == series:
            return found
    return None


def candidates(series: str) -> Iterator[Path]:
    """Every place where a `python3.X` may be: the PATH, pyenv, uv, the usual prefixes, a CI's tool cache."""
    name = f"python{series}"
    if sys.version_info[:2] == tuple(map(int, series.split("."))):
        yield Path(sys.executable)
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield Path(folder or ".") / name
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv")
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    yield from _newest_first(pyenv / "versions", f"{series}*/bin/{name}")
    yield from _newest_first(uv, f"cpython-{series}*/bin/{name}")
    for prefix in ("/usr/local", "/opt/homebrew", f"/opt/python/{series}", f"/opt/python{series}", "/usr"):
        yield Path(prefix, "bin", name)
    framework = "/Library/Frameworks/Python.framework/Versions"
    yield Path(framework, series, "bin", name)
    yield from _newest_first(Path("/opt/hostedtoolcache/Python"), f"{series}*/*/bin/{name}")


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    def numbers(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.as_posix())]

    return sorted(folder.glob(pattern), key=numbers, reverse=True)


def probe(path: Path) -> Interpreter | None:
    """Run it and ask; None for whatever is missing, fails, hangs, is not CPython or not released."""
    if not os.access(path, os.X_OK) or path.is_dir():
        return None
    try:
        said = subprocess.run(
            [path, "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    parts = said.stdout.strip().split("|")
    if said.returncode != 0 or len(parts) != 3:
        return None
    implementation, version, level = parts
    if implementation != "CPython" or level != "final":
        return None
    return Interpreter(path, version)
