"""The style of the charts, and their conversion to PNG and to SVG for a page with a light and a dark mode.

Charts are drawn in the colors of the light mode. In the page's SVG each color is a CSS variable, so that the charts
follow the page's mode.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2733", "#56626e", "#d5dbe1", "#ffffff"
BLUE, ORANGE, GREEN, RED = "#1565a9", "#b35309", "#2b7a4b", "#b3261e"
LIGHT = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "paper": PAPER,
    "blue": BLUE,
    "orange": ORANGE,
    "green": GREEN,
    "red": RED,
}
DARK = {
    "ink": "#e6ebf0",
    "muted": "#a3afba",
    "grid": "#36414c",
    "paper": "#161c22",
    "blue": "#6cb2f2",
    "orange": "#f0a35e",
    "green": "#6fc793",
    "red": "#f28b82",
}
FIGURE_SIZE = (4.6, 3.2)  # inches, each 72 SVG units; small, so that text stays legible on a phone
PNG_DPI = 180
LONG_NUMBER = re.compile(r"(\d\.\d\d)\d+")  # of an SVG; a hundredth of a unit is invisible
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,  # a class name may contain $\frac$
    "svg.fonttype": "none",  # text stays text, for search and screen readers
    "svg.hashsalt": "freezeline",  # reproducible element ids
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
}


def css(colors: dict[str, str]) -> str:
    """Return the colors as CSS variable declarations."""
    return "".join(f"--{name}:{color};" for name, color in colors.items())


def png(figure: Figure) -> bytes:
    """Return a chart as a PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=PNG_DPI)
    return out.getvalue()


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a chart as an SVG element in the page's colors, with ``label`` as its text alternative.

    Element ids are prefixed with ``name``, so that they are unique within the page.
    """
    import matplotlib as mpl
    from markupsafe import escape

    out = io.StringIO()
    # rc_context: svg.fonttype and svg.hashsalt are read when the figure is saved.
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r">\s+<", "><", text)
    text = re.sub(r"<[^>]+>", lambda tag: LONG_NUMBER.sub(r"\1", tag[0]), text)  # only within tags: not the labels
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    for variable, color in LIGHT.items():
        text = text.replace(color, f"var(--{variable})")
    attributes = f'role="img" aria-label="{escape(label)}" class="chart"'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda match: f"<svg {attributes} {match[1]}>", text, count=1)
