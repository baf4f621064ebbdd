"""The skeleton of a text: its headings, and for Python its classes and functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

# The file name given to the parser, so that a program can silence its warnings about other people's code.
PARSED_NAME = "lastcall-demo-source"

_ATX_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_UNDERLINE = re.compile(r"([=\-~^\"'`:.*+#_])\1{2,}\s*$")
_SETEXT_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its depth from 1, its text and its line."""

    level: int
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Definition:
    """A class, function or method (that is its `kind`): its dotted name, first line and number of lines."""

    kind: str
    name: str
    line: int
    lines: int


@dataclass(frozen=True, slots=True)
class Code:
    """What Python's own parser found: the definitions, and the docstrings in the order of the file."""

    definitions: tuple[Definition, ...]
    docstrings: tuple[str, ...]


class Unparsable(Exception):
    """The file is not valid Python for this interpreter; the message says where."""


def headings(content: str, kind: str) -> tuple[Heading, ...]:
    """Find the headings of a Markdown or reStructuredText file; other kinds have none."""
    if kind == "markdown":
        return tuple(_markdown_headings(content.split("\n")))
    if kind == "rst":
        return tuple(_rst_headings(content.split("\n")))
    return ()


def parse_python(content: str) -> Code:
    """Find every class and function with its line. Raises :class:`Unparsable`."""
    try:
        tree = ast.parse(content, filename=PARSED_NAME)
    except SyntaxError as error:
        raise Unparsable(f"not valid Python: {error.msg} in line {error.lineno}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes; code nested too deeply
        raise Unparsable(f"cannot be parsed as Python: {type(error).__name__}") from None

    definitions: list[Definition] = []
    docstrings: list[str] = [ast.get_docstring(tree) or ""]
    statements: list[tuple[ast.AST, str, bool]] = [(node, "", False) for node in reversed(tree.body)]
    while statements:
        node, prefix, in_class = statements.pop()
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_class = isinstance(node, ast.ClassDef)
            kind = "class" if is_class else "method" if in_class else "function"
            name = prefix + node.name
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            definitions.append(Definition(kind, name, node.lineno, lines))
            docstrings.append(ast.get_docstring(node) or "")
            prefix, in_class = name + ".", is_class
        # Only statements hold definitions: leaving expressions out makes this several times faster.
        children = [child for child in ast.iter_child_nodes(node) if isinstance(child, _HOLDERS)]
        statements.extend((child, prefix, in_class) for child in reversed(children))
    return Code(tuple(definitions), tuple(text for text in docstrings if text))


_HOLDERS = (ast.stmt, ast.ExceptHandler, ast.match_case)


def _markdown_headings(lines: list[str]) -> Iterator[Heading]:
    fence: str | None = None
    previous = ""
    for number, line in enumerate(lines, start=1):
        mark = _FENCE.match(line)
        if fence is not None:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = None
            previous = ""
        elif mark:
            fence, previous = mark[1], ""
        elif atx := _ATX_HEADING.match(line):
            yield Heading(len(atx[1]), atx[2], number)
            previous = ""
        elif (
            (setext := _SETEXT_UNDERLINE.match(line))
            and previous
            and not previous.startswith((">", "-", "*", "|"))
        ):
            yield Heading(1 if setext[1][0] == "=" else 2, previous, number - 1)
            previous = ""
        else:
            previous = line.strip() if not line.startswith("    ") else ""


def _rst_headings(lines: list[str]) -> Iterator[Heading]:
    """In reStructuredText the first kind of underline met is level 1, the next level 2, and so on."""
    levels: list[str] = []
    for number, (title, below) in enumerate(zip(lines, lines[1:], strict=False), start=1):
        text = title.strip()
        underline = _UNDERLINE.match(below)
        if (
            underline is None
            or not text
            or _UNDERLINE.match(title)
            or len(below.rstrip()) < len(title.rstrip())
        ):
            continue
        if title[0].isspace() and not (number > 1 and _UNDERLINE.match(lines[number - 2])):
            continue
        above = lines[number - 2].rstrip() if number > 1 else ""
        style = underline[1] + ("/" if above == below.rstrip() else "")
        if style not in levels:
            levels.append(style)
        yield Heading(levels.index(style) + 1, text, number)
