"""Bar charts as SVG.

This does not use a library: pygal's pictures contain scripts, matplotlib takes 60 MB, and neither
supports light and dark colour schemes.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .figures import compact
from .report import Bar

__all__ = ["bars_as_svg"]

# Narrow, with the labels above the bars, to be readable on a telephone.
_WIDTH = 460
_LEFT = 12  # left margin
_FULL = 376  # length of the longest bar; its number needs the rest
_TOP = 56
_STEP = 38
_THICKNESS = 13

# The background is transparent. The reader's scheme selects the colours.
_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.aside { font-size: 12px; fill: #57606a; }
.number { font-variant-numeric: tabular-nums; }
.ours { fill: #0b6bcb; }
.other { fill: #a3adb8; }
.range { stroke: #24292f; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .aside { fill: #a5b0bb; }
  .ours { fill: #58a6ff; }
  .other { fill: #6b7681; }
  .range { stroke: #e6edf3; }
}
"""


def bars_as_svg(axis: str, bars: Sequence[Bar]) -> str:
    """Draw horizontal bars from zero, the thin line on each being its lowest and highest round.

    Args:
        axis: title of the picture; the part in brackets becomes a second line.
        bars: from top to bottom.
    """
    height = _TOP + _STEP * len(bars) + 4
    most = max((bar.value.high for bar in bars), default=0) or 1
    said = "; ".join(f"{bar.label}: {compact(bar.value.median)}" for bar in bars)
    title, _, aside = axis.partition(" (")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
        f' width="{_WIDTH}" height="{height}" role="img">',
        f"<title>{escape(axis)}</title>",
        f"<desc>{escape(said)}</desc>",
        f"<style>\n{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>',
    ]
    if aside:
        said = escape(aside.removesuffix(")"))
        parts.append(f'<text class="aside" x="{_LEFT}" y="38">{said}</text>')
    for number, bar in enumerate(bars):
        parts += _bar(bar, _TOP + _STEP * number, _FULL / most)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(bar: Bar, top: int, scale: float) -> list[str]:
    """Draw the label, the bar below it, its range and its number."""
    bar_top = top + 16
    middle = bar_top + _THICKNESS / 2
    length = max(bar.value.median * scale, 1)
    low, high = (_LEFT + value * scale for value in (bar.value.low, bar.value.high))
    number_x = max(_LEFT + length, high) + 8
    bold = ' class="title"' if bar.ours else ""
    return [
        f'<text{bold} x="{_LEFT}" y="{top + 11}">{escape(bar.label)}</text>',
        f'<rect class="{"ours" if bar.ours else "other"}" x="{_LEFT}" y="{bar_top}"'
        f' width="{length:.1f}" height="{_THICKNESS}" rx="2"/>',
        f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text class="number" x="{number_x:.1f}" y="{middle + 4.5:.1f}">'
        f"{compact(bar.value.median)}</text>",
    ]
