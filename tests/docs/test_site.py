"""The scripts around the site: links of pages to files of the project, and the look at what was built."""

import json
from pathlib import Path

import pytest
import yaml

from scripts.docs.check import asked_outside, main, not_found_by_search
from scripts.docs.site import place_of, rewrite, sources, targets
from tests.frame.floorplan import ROOT


def test_links_lead_to_pages_of_the_site() -> None:
    """A page links to a program, to another page and to a file that is not there."""
    text = "[a](../examples/quickstart.py) [b](jobs.md#steps) [c](../no/such.py) `[d](../README.md)` [e](https://x.example)"
    changed = rewrite(text, "fastapi.md", "docs/fastapi.md")
    assert changed == (
        "[a](source/examples/quickstart.py.md) [b](jobs.md#steps) [c](../no/such.py) `[d](../README.md)` [e](https://x.example)"
    )
    assert targets(text, "docs/fastapi.md") == {"examples/quickstart.py"}
    assert rewrite("[bench](../bench/README.md)", "reference/index.md", "docs/index.md") == (
        "[bench](../source/bench/README.md)"
    )
    assert place_of("docs/jobs.md") == "jobs.md"


def test_every_file_of_the_project_that_is_linked_has_its_page() -> None:
    """The maps and programs that pages link to are in the site, and their own links lead on."""
    pages = sources()
    assert {"source/bench/README.md", "source/ARCHITECTURE.md", "source/examples/tutorial/index.md"} <= set(
        pages
    )
    assert "source/examples/tutorial/threads.py.md" in pages
    assert "](../docs/" not in "".join(pages.values())


def test_every_page_has_its_place_in_the_navigation() -> None:
    """A page was written, and nobody finds it."""

    def files(entries: list) -> set[str]:
        found = set()
        for entry in entries:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            found |= files(value) if isinstance(value, list) else {value}
        return found

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert written <= files(config["nav"])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site as mkdocs would leave it."""
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search_index.json").write_text(json.dumps({"docs": [{"location": "index.html"}]}))
    (tmp_path / "index.html").write_text('<a href="https://x.example">x</a><script src="a.js"></script>')
    (tmp_path / "site.css").write_text("body { background: url('a.png') }")
    return tmp_path


def test_a_clean_site_is_clean(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Links to others are no requests."""
    assert main(site) == 0
    assert "no request to anybody else" in capsys.readouterr().out
    assert main(site / "nothing") == 2


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="preconnect" href="https://fonts.example">',
        '<img src="//cdn.example/a.png">',
        '<pre class="mermaid">a --> b</pre>',
    ],
)
def test_a_request_to_somebody_else_is_found(site: Path, html: str) -> None:
    """A badge, a font, a script or a diagram that is drawn by a script from elsewhere."""
    (site / "index.html").write_text(html)
    assert len(asked_outside(site)) == 1
    (site / "index.html").write_text("")
    (site / "site.css").write_text("@import 'https://fonts.example/a.css'; a { b: url(//cdn.example/x) }")
    assert len(asked_outside(site)) == 2


def test_a_page_that_the_search_does_not_know_is_found(site: Path) -> None:
    """All but the page of errors and the files of the project."""
    for name in ("jobs.html", "404.html", "source/a.html"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text("")
    assert not_found_by_search(site) == ["the search does not know jobs.html"]
