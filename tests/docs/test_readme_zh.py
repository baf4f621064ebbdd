"""README.zh.md says what README.md says: the same code, the same sections, the same places to go on."""

import re

from tests.frame.floorplan import ROOT

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return FENCE.sub("", text)


def test_the_code_is_the_same() -> None:
    """A block was changed in one of them."""
    assert FENCE.findall(CHINESE) == FENCE.findall(ENGLISH)


def test_the_sections_correspond() -> None:
    """A section was added, taken out or moved in one of them."""

    def shape(text: str) -> list[tuple[str, int, int]]:
        """Of each section: its depth, and how many rows of tables and points of lists it has."""
        parts = re.split(r"^(#+) ", without_code(text), flags=re.M)[1:]
        return [
            (depth, len(re.findall(r"^\|", body, re.M)), len(re.findall(r"^- ", body, re.M)))
            for depth, body in zip(parts[::2], parts[1::2], strict=True)
        ]

    assert shape(CHINESE) == shape(ENGLISH)


def test_the_links_correspond() -> None:
    """A page is named in one of them only."""

    def links(text: str) -> list[str]:
        found = re.findall(r"\]\(([^)]+)\)", without_code(text))
        return sorted(link for link in found if not link.startswith("README"))

    assert links(CHINESE) == links(ENGLISH)


def test_the_calls_in_its_tables_are_the_same() -> None:
    """A row of a table calls something else in one of them."""

    def calls(text: str) -> list[str]:
        rows = re.findall(r"^\|.*$", without_code(text), re.M)
        return [call for row in rows for call in re.findall(r"`([^`]+)`", row)]

    assert calls(CHINESE) == calls(ENGLISH)
