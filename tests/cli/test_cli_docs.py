"""docs/cli.md: its sessions are run as they stand, its codes are those of the checks, and help tells exit codes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from lastcall.cli import doctor
from lastcall.cli._app import app
from tests.cli.program import ROOT, WAIT_SECONDS
from tests.cli.test_serve_command import free_port

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def sessions() -> list[tuple[str, str]]:
    """Each command with the output that the page shows for it."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, flags=re.S | re.M):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, _, output = part.partition("\n")
            found.append((line, output))
    return found


def pattern(output: str) -> str:
    """A line of `…` stands for any number of lines; `…` in a line for anything in it."""
    parts = []
    for line in output.splitlines(keepends=True):
        if line == "…\n":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r"[^\n]*?".join(re.escape(piece) for piece in line.split("…")))
    return "".join(parts)


@pytest.mark.server
def test_the_sessions_of_the_page(on_disk: Path) -> None:
    """A person who pastes the page's app and its commands, one after the other, sees what the page shows."""
    code = re.search(r"^```python\n(.*?)^```", PAGE, flags=re.S | re.M)
    assert code is not None
    (on_disk / "app.py").write_text(code[1])
    port = str(free_port())
    commands = sessions()
    assert len(commands) >= 12
    script = ["set -u", f'lastcall() {{ "{sys.executable}" -m lastcall "$@"; }}']
    for number, (line, _) in enumerate(commands):
        script.append(f"echo '<{number}>'")
        script.append(line.replace("8000", port))
        if line.endswith("&"):  # a person waits until it serves, too
            script.append("for n in $(seq 300); do grep -q kill_after serve.log && break; sleep 0.1; done")
    script += ["echo '<end>'", "wait $!", "echo code $?"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"}
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-c", "\n".join(script)],
        cwd=on_disk, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=WAIT_SECONDS,
    )  # fmt: skip
    shown = done.stdout.replace(port, "8000")
    parts = re.split(r"^<(?:\d+|end)>\n", shown, flags=re.M)[1:]
    for (line, output), printed in zip(commands, parts, strict=False):
        assert re.fullmatch(pattern(output), printed), f"$ {line}\n{printed}\nthe page:\n{output}"
    assert parts[-1] == "code 0\n"


def test_the_page_lists_the_codes_of_doctor() -> None:
    """No code that the page does not explain, none on the page that is never found."""
    table = PAGE.split("<!-- codes", 1)[1].split("What it cannot see", 1)[0]
    listed = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`(?=[^|]*\|[^|]*\|$)", table, flags=re.M))
    sources = Path(doctor.__file__).parent.glob("*.py")
    codes = {code for path in sources for code in re.findall(r'Finding\(\s*"([a-z-]+)"', path.read_text())}
    assert listed == codes


def commands(group: Any, path: str = "lastcall") -> Iterator[tuple[str, Any]]:
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, f"{path} {name}")
        else:
            yield f"{path} {name}", found


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_help_tells_exit_codes(name: str) -> None:
    """Scripts trust exit codes that are written down; and every command has JSON, but the one that only runs."""
    found = ALL[name]
    assert "Exit code:" in f"{found.help}{found.epilog}"
    assert any("--json" in option.opts for option in found.params) or name == "lastcall worker"


def test_the_page_lists_every_command() -> None:
    """None is left out of the overview."""
    table = PAGE.split("| command |", 1)[1].split("\n\n", 1)[0]
    for name in ALL:
        words = name.split()
        assert f"`{' '.join(words[:2])}" in table and words[-1] in table, name
