"""Look at the built site: nobody outside is asked for anything, and every page can be found by the search.

python scripts/docs/check.py build/site

Prints what is wrong, and exits with 1 if anything is. What pages merely link to is no request, and passes.
"""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

_OUTSIDE = re.compile(r"^(?:https?:)?//")
_CSS_URL = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])((?:https?:)?//[^'\")]+)")
_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
# The theme's script loads these from elsewhere as soon as a page has one.
_LOADERS = {"mermaid": "a mermaid diagram", "md-source": "a link to a repository with its figures"}
_LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "modulepreload",
    "manifest",
}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag in _LOADED:
            self._look(values.get(_LOADED[tag], ""))
        elif tag == "link" and _LINKS & set(values.get("rel", "").split()):
            self._look(values.get("href", ""))
        for name in values.get("class", "").split():
            if name in _LOADERS:
                self.asked.append(_LOADERS[name])

    def _look(self, url: str) -> None:
        if _OUTSIDE.match(url):
            self.asked.append(url)


def asked_outside(site: Path) -> list[str]:
    """Every request to somebody else that opening a page would make."""
    found = []
    for path in sorted(site.rglob("*.html")):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)} asks for {what}" for what in page.asked]
    for path in sorted(site.rglob("*.css")):
        urls = _CSS_URL.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)} asks for {url}" for url in urls]
    return found


def not_found_by_search(site: Path) -> list[str]:
    """Pages that the search knows nothing of; those of the project's files are left out on purpose."""
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    known = {entry["location"].split("#")[0] for entry in index["docs"]}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    wanted = {page for page in pages if page != "404.html" and not page.startswith("source/")}
    return [f"the search does not know {page}" for page in sorted(wanted - known)]


def main(site: Path) -> int:
    if not (site / "index.html").is_file():
        print(f"there is no site in {site}; build it first: make docs", file=sys.stderr)
        return 2
    wrong = asked_outside(site) + not_found_by_search(site)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        pages = sum(1 for _ in site.rglob("*.html"))
        print(f"{site}: {pages} pages, no request to anybody else, all of them known to the search")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
