"""The import row: what `import X` adds to a fresh interpreter that has imported asyncio.

The floor, bare `import asyncio`, is taken in a process of its own next to each round. All share a fresh byte code
cache: one that is stale, missing or forbidden (PYTHONDONTWRITEBYTECODE) would measure the compiler instead.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from statistics import median

from .rows import Paired

TIMEOUT_SECONDS = 60
PROGRAM = """
import sys, time
started = time.process_time()
import asyncio
between = time.process_time()
known = set(sys.modules)
if len(sys.argv) > 1:
    __import__(sys.argv[1])
ended = time.process_time()
import json
print(json.dumps([between - started, ended - between, sorted(set(sys.modules) - known - {"json"})]))
"""


@dataclass(frozen=True)
class Imported:
    """CPU seconds of the whole (asyncio and the module) beside the floor, seconds added, and what came along."""

    paired: Paired
    added_seconds: float
    modules: int
    third_party: list[str]


def _fresh_interpreter(cache: str, *module: str) -> tuple[float, float, list[str]]:
    command = [sys.executable, "-c", PROGRAM, *module]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = cache
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    base, added, modules = json.loads(done.stdout)
    return base, added, modules


def measure_import(module: str, rounds: int) -> Imported:
    """Import `module` in `rounds` fresh interpreters, each beside a bare one.

    RuntimeError with the interpreter's last line if the import fails.
    """
    floors, totals, extras = [], [], []
    modules: list[str] = []
    with tempfile.TemporaryDirectory() as cache:
        _fresh_interpreter(cache, module)  # writes the byte code
        for _ in range(rounds):
            floors.append(_fresh_interpreter(cache)[0])
            base, added, modules = _fresh_interpreter(cache, module)
            totals.append(base + added)
            extras.append(added)
    roots = {name.partition(".")[0] for name in modules}
    foreign = sorted(roots - sys.stdlib_module_names - {module.partition(".")[0], "__mp_main__"})
    return Imported(Paired(floors, totals), median(extras), len(modules), foreign)
