"""Headings and definitions, in text that was written to mislead."""

import pytest

from lastcall.demo.structure import Unparsable, headings, parse_python


def found(content: str, kind: str) -> list[tuple[int, str, int]]:
    return [(heading.level, heading.text, heading.line) for heading in headings(content, kind)]


def test_markdown_headings_of_both_styles_with_their_lines() -> None:
    """Hash marks, closing hash marks, underlines."""
    text = "# One #\n\ntext\n\nTwo\n---\n\nThree\n===\n#not one\n###### Six\n"
    assert found(text, "markdown") == [(1, "One", 1), (2, "Two", 5), (1, "Three", 8), (6, "Six", 11)]


def test_code_in_markdown_holds_no_headings() -> None:
    """A comment inside a fence is not a heading, whatever fence stands inside the fence."""
    text = "````\n# no\n```\n# no\n````\n# yes\n~~~\n# no"
    assert found(text, "markdown") == [(1, "yes", 6)]


def test_rules_and_tables_are_not_underlines() -> None:
    """A line of dashes after a blank line is a rule, after a list or table no heading."""
    assert found("\n---\n\n- item\n---\n\n| a |\n---\n", "markdown") == []


def test_rst_levels_follow_the_order_of_underlines() -> None:
    """The first style met is level 1, an overlined one is a style of its own."""
    text = "=====\nTitle\n=====\n\nPart\n----\n\nMore\n====\n\nToo long a title\n---\n\nPart 2\n------\n"
    assert found(text, "rst") == [(1, "Title", 2), (2, "Part", 5), (3, "More", 8), (2, "Part 2", 14)]


def test_definitions_have_dotted_names_kinds_lines_and_lengths() -> None:
    """Classes, methods, nested and conditional functions, async ones too."""
    code = parse_python(
        "class A:\n    def f(self):\n        def inner(): pass\n    class B:\n"
        "        async def g(self): pass\nif True:\n    def h(): pass\ntry: pass\n"
        "except E:\n    def i(): pass\nmatch x:\n    case 1:\n        def j(): pass\n"
    )
    assert [(d.kind, d.name, d.line, d.lines) for d in code.definitions] == [
        ("class", "A", 1, 5),
        ("method", "A.f", 2, 2),
        ("function", "A.f.inner", 3, 1),
        ("class", "A.B", 4, 2),
        ("method", "A.B.g", 5, 1),
        ("function", "h", 7, 1),
        ("function", "i", 10, 1),
        ("function", "j", 13, 1),
    ]


@pytest.mark.parametrize(
    "content", ["def f(:\n", "x = '\0'", "(" * 5000, "-" * 50_000 + "1", "x" + ".a" * 50_000]
)
def test_code_that_cannot_be_parsed_is_an_answer(content: str) -> None:
    """Syntax errors, zero bytes, nesting too deep for the parser: one clear exception, no crash."""
    with pytest.raises(Unparsable, match="Python"):
        parse_python(content)
