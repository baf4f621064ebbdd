"""The median ratios as horizontal bars in one SVG file, no library needed."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from .report import TITLES, rows_in_order
from .rows import Row

WIDTH = 760
LABEL_WIDTH = 210
BAR_HEIGHT = 16
LINE_HEIGHT = 21
BLOCK_GAP = 34
OURS, OTHERS, FLOOR_LINE = "#0b6e4f", "#9aa5b1", "#c0392b"
STYLE = "text{font:12px sans-serif;fill:#1f2933}.title{font-weight:bold}"


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def _block(title: str, rows: Sequence[Row], top: float) -> list[str]:
    """One title, one bar for each row, and a line where the floor is."""
    most = max(1.0, *(row.ratio_median or 0.0 for row in rows))
    scale = (WIDTH - LABEL_WIDTH - 70) / most
    bottom = top + LINE_HEIGHT * len(rows)
    parts = [text(10, top - 8, title, "title")]
    for number, row in enumerate(rows):
        ratio = row.ratio_median or 0.0
        y = top + number * LINE_HEIGHT
        colour = OURS if row.ours else OTHERS
        parts.append(text(LABEL_WIDTH - 8, y + 12, row.contender, anchor="end"))
        parts.append(
            f'<rect x="{LABEL_WIDTH}" y="{y:.0f}" width="{ratio * scale:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>'
        )
        parts.append(text(LABEL_WIDTH + ratio * scale + 6, y + 12, f"{ratio:.2f}×"))
    x = LABEL_WIDTH + scale
    parts.append(
        f'<line x1="{x:.1f}" y1="{top - 4:.0f}" x2="{x:.1f}" y2="{bottom:.0f}" '
        f'stroke="{FLOOR_LINE}" stroke-dasharray="3 3"/>'
    )
    return parts


def svg(rows: Sequence[Row]) -> str:
    """A chart of every measured row; shorter is better, the dashed line is the floor."""
    parts: list[str] = []
    top = 40.0
    measured = [row for row in rows_in_order(rows) if row.ratio_median is not None]
    for (section, loop, body), block in groupby(measured, key=lambda row: (row.section, row.loop, row.body)):
        members = list(block)
        parts += _block(" | ".join(part for part in (TITLES[section], loop, body) if part), members, top)
        top += LINE_HEIGHT * len(members) + BLOCK_GAP
    size = f'viewBox="0 0 {WIDTH} {top:.0f}" width="{WIDTH}" height="{top:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join(
        [
            head,
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>",
            "",
        ]
    )
