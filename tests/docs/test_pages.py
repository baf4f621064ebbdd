"""What the pages name is there: the tests behind the promises, the alerts of the runbook, the command's options."""

import re
from pathlib import Path

import pytest
import typer.main
import yaml

from lastcall.cli._app import app
from tests.frame.floorplan import ROOT

DOCS = ROOT / "docs"
NAMED = re.compile(r"\[`(test_\w+)`\]\(\.\./(tests/[^)]+\.py)\)")
SCRIPT = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"^\$ (lastcall .*)$", re.MULTILINE)


def test_every_promise_names_tests_that_exist() -> None:
    """A test was renamed, and a promise is proved by nothing any more."""
    page = (DOCS / "promises.md").read_text(encoding="utf-8")
    promises = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert [text.split(".")[0] for text in promises[:12]] == [str(number) for number in range(1, 13)]
    assert [text.splitlines()[0] for text in promises[:12] if len(NAMED.findall(text)) < 4] == []
    missing = [
        f"{path}: {name}"
        for name, path in NAMED.findall(page)
        if not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.M)
    ]
    assert missing == []


def test_every_alert_is_in_the_runbook() -> None:
    """Somebody is woken by an alert, and the runbook does not know it; or it tells of one that is gone."""
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    sections = re.split(r"^### ", page, flags=re.MULTILINE)[1:]
    told = {text.splitlines()[0]: text for text in sections if text.startswith("Lastcall")}
    assert list(told) == alerts
    assert [name for name, text in told.items() if "**Look**" not in text or "**Do**" not in text] == []


def figures(text: str) -> set[str]:
    """Its numbers, whatever stands between the thousands."""
    return set(re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d)[ ,\u202f](?=\d{3})", "", text)))


def test_the_figures_of_the_comparison_are_those_of_the_bench() -> None:
    """The bench was run again, and the page that compares still shows what was before."""
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \*\*lastcall\*\*.*$", page, re.MULTILINE)
    assert len(rows) >= 5
    known = figures((ROOT / "bench" / "README.md").read_text(encoding="utf-8"))
    assert {row: wrong for row in rows if (wrong := figures(row) - known)} == {}


def commands(page: Path) -> list[list[str]]:
    """Every `lastcall ...` of a page, in its blocks and in its words, up to a pipe or an ellipsis."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in SCRIPT.findall(text) for line in block.splitlines()]
    lines += SESSION.findall(text) + re.findall(r"`(lastcall [^`\n]+)`", text)
    plain = [re.sub(r"\s#.*$|[|&;<>(…].*$", "", line.strip()) for line in lines]
    return [re.sub("['\"]", "", line).split()[1:] for line in plain if line.startswith("lastcall ")]


@pytest.mark.parametrize(
    "page", [*ROOT.glob("README*.md"), *sorted(DOCS.glob("*.md"))], ids=lambda page: page.stem
)
def test_every_command_exists(page: Path) -> None:
    """A page tells somebody to type what the command does not know."""
    unknown = []
    for words in commands(page):
        command = typer.main.get_command(app)
        rest = list(words)
        while rest and rest[0] in (choices := getattr(command, "commands", {})):
            command = choices[rest.pop(0)]
        options = {"--help", *(name for option in command.params for name in option.opts)}
        wrong = [word for word in rest if word.startswith("--") and word.split("=")[0] not in options]
        if getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
            wrong.append(rest[0])
        if wrong:
            unknown.append(f"lastcall {' '.join(words)}: {', '.join(wrong)}")
    assert unknown == []


def test_every_verb_of_make_exists() -> None:
    """A page tells somebody to `make` what the Makefile does not know."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    told = set()
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "bench" / "README.md"]:
        text = page.read_text(encoding="utf-8")
        typed = [*re.findall(r"`(make [^`]+)`", text), *"".join(SCRIPT.findall(text)).splitlines()]
        told |= {(page.name, line.split()[1]) for line in typed if line.startswith("make ")}
    assert {(page, verb) for page, verb in told if verb not in known} == set()
    assert {"demo", "test", "docs"} <= {verb for _, verb in told}
