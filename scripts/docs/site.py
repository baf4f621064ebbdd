"""What mkdocs is told beside mkdocs.yml: pages link to files of the project, and the site has these files as pages.

mkdocs calls the two hooks at the end. The rest is pure, so that another builder of sites can take it over. A link that
leads nowhere is left as it stands, and mkdocs' strict mode fails on it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FOLDER = "source"  # where the site has the project's files

_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(\))")
_LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".html": "html",
    ".json": "json",
    ".toml": "toml",
}


def rewrite(text: str, page: str, home: str) -> str:
    """The text of the page of the site `page`, whose links are written as seen from `home`, a path of the project.

    A link into docs/ becomes one to that page; a link to another file of the project one to its page below `source/`.
    """

    def changed(found: re.Match[str]) -> str:
        opening, target, anchor, closing = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        place = place_of(path)
        if place is None:
            return found[0]
        relative = posixpath.relpath(place, posixpath.dirname(page) or ".")
        return f"{opening}{relative}{anchor or ''}{closing}"

    return _outside_of_code(text, lambda part: _LINK.sub(changed, part))


def place_of(path: str) -> str | None:
    """Where the site has a file of the project; None for what it has not."""
    if path == "docs":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    file = ROOT / path
    if path.startswith("..") or not file.exists():
        return None
    if file.is_dir():
        return f"{FOLDER}/{path}/index.md"
    return f"{FOLDER}/{path}" if path.endswith(".md") else f"{FOLDER}/{path}.md"


def targets(text: str, home: str) -> set[str]:
    """The files of the project outside of docs/ that a text links to, as paths of the project."""
    found: set[str] = set()

    def look(part: str) -> str:
        for _, target, _, _ in _LINK.findall(part):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
            place = place_of(path)
            if place is not None and place.startswith(f"{FOLDER}/"):
                found.add(path)
        return part

    _outside_of_code(text, look)
    return found


def sources() -> dict[str, str]:
    """Every page below `source/`: what the docs link to, and what those link to, by their place in the site."""
    waiting = {"bench/README.md", "ARCHITECTURE.md"}
    for page in DOCS.rglob("*.md"):
        waiting |= targets(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
    pages: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        place = place_of(path)
        if place is None or place in pages:
            continue
        pages[place], more = _page(path, place)
        waiting |= more
    return pages


def _page(path: str, place: str) -> tuple[str, set[str]]:
    file = ROOT / path
    if file.is_dir():
        names = sorted(f"{path}/{child.name}" for child in file.iterdir() if child.suffix in _LANGUAGES)
        lines = [f"- [{Path(name).name}]({Path(name).name}.md)" for name in names]
        return _headed(path, "\n".join(lines)), set(names)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return rewrite(text, place, path), targets(text, path)
    fence = "`" * 5
    return _headed(path, f"{fence}{_LANGUAGES.get(file.suffix, 'text')}\n{text}{fence}"), set()


def _headed(path: str, body: str) -> str:
    """Found by a link, not by the search: a word of a test is rarely what somebody looks for."""
    return f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{body}\n"


def _outside_of_code(text: str, change: Callable[[str], str]) -> str:
    parts = re.split(r"(^`{3,}.*?^`{3,}$|`[^`\n]+`)", text, flags=re.M | re.S)
    # Code in a link's own words, `[`x`](y)`, is cut in two by this; both halves are handled, since a link's target is
    # outside of the code.
    return "".join(part if at % 2 else change(part) for at, part in enumerate(parts))


# --- what mkdocs calls ---


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File  # only there while mkdocs runs

    for place, text in sources().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    place = page.file.src_uri
    return markdown if place.startswith(f"{FOLDER}/") else rewrite(markdown, place, f"docs/{place}")
