"""No file tells where it was written: no registry's host, no path of one machine."""

import re
import subprocess

import pytest

from tests.frame.floorplan import ROOT

# Put together here, so that this file does not contain what it looks for.
HOSTS = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "yarn" + "pkg.com"]
FORBIDDEN = {
    "a registry's host": re.compile("|".join(map(re.escape, HOSTS))),
    "a path of one machine": re.compile(r"(?<![\w.~-])/(?:work|root|home/[a-z]+|Users/[a-z]+)/"),
}
GENERATED = {"build", "dist", "node_modules"}


def files() -> list[str]:
    """What is in the repository or about to be: tracked, or new and not ignored; else what is unpacked."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        return [name for name in listed.stdout.split("\0") if name]
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    # Hidden folders are environments and caches, but for the one with CI's own script.
    return [
        str(path)
        for path in paths
        if not any(
            (part.startswith(".") and part != ".ci") or part in GENERATED for part in path.parent.parts
        )
        and path.suffix != ".pyc"
    ]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_tells_where_it_was_written(what: str) -> None:
    """A file that names this machine or a registry works nowhere else."""
    found = []
    for name in files():
        path = ROOT / name
        if not path.is_file():  # deleted, and the deletion not yet committed
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if FORBIDDEN[what].search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("see https://" + HOSTS[0] + "/project/x", "a registry's host"),
        ("cd " + "/ro" + "ot/x", "a path of one machine"),
        ("open('" + "/ho" + "me/ann/file')", "a path of one machine"),
    ],
)
def test_the_guard_sees(line: str, what: str) -> None:
    """The patterns match what they are for."""
    assert FORBIDDEN[what].search(line)


@pytest.mark.parametrize(
    "line", ["docs/work/plan.md", "https://example.com/work/", "~/work/", "an app's /homepage/"]
)
def test_the_guard_lets_pass(line: str) -> None:
    """A relative path or an address is no machine's path."""
    assert not any(pattern.search(line) for pattern in FORBIDDEN.values())
