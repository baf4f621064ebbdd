"""The code in the README and the docs is the examples' code, which tests run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")


def test_every_python_block_stands_in_an_example() -> None:
    """A reader pastes a block of the README, and it is not what the tests have run."""
    examples = [path.read_text(encoding="utf-8") for path in (ROOT / "examples").rglob("*.py")]
    pages = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("**/*.md")]
    blocks: list[str] = [block for page in pages for block in BLOCK.findall(page.read_text(encoding="utf-8"))]
    assert blocks
    assert [block for block in blocks if not any(block in example for example in examples)] == []


def test_every_link_leads_to_a_file() -> None:
    """A page moved, and the README and docs still point to where it was."""
    pages = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("**/*.md")]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / link.split("#")[0]).exists()
    ]
    assert broken == []
