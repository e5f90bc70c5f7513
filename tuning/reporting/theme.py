"""How the charts look, and how a chart becomes part of a page that may be light or dark.

Charts are drawn in the light colors. In the page each color is a variable of the style sheet, so that the reader's
choice of light or dark reaches into the charts.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
SIZE = (5.2, 3.4)  # inches, of 72 units of the page's drawing: small, so that text stays legible on a phone
DOTS = 160  # of a PNG, per inch
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,  # a class may be called $\frac$
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "freezeline",  # the same chart, the same bytes
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
    """Return the declarations of a style sheet's colors."""
    return "".join(f"--{name}:{color};" for name, color in colors.items())


def restyle(axes: Axes) -> None:
    """Give a chart that a library has drawn in its own style ours; its title goes, for the page has one."""
    figure = axes.figure
    figure.set_size_inches(SIZE)
    figure.set_facecolor(PAPER)
    figure.set_layout_engine("constrained")
    axes.set_facecolor(PAPER)
    axes.set_title("")
    axes.set_title("", loc="left")
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=STYLE["grid.linewidth"])
    axes.tick_params(colors=MUTED, labelsize=STYLE["font.size"])
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=MUTED, size=STYLE["font.size"])
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(GRID)


def png(figure: Figure) -> bytes:
    """Return a chart as a PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DOTS)
    return out.getvalue()


def svg(figure: Figure, name: str, label: str) -> str:
    """Return a chart as an element of a page, in the page's colors, with a ``label`` for those who don't see it.

    Names within it begin with ``name``, so that charts on one page don't share them.
    """
    import matplotlib as mpl

    out = io.StringIO()
    # Within the style: how text is written down is decided when a figure is saved.
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    for variable, color in LIGHT.items():
        text = text.replace(color, f"var(--{variable})")
    attributes = f'role="img" aria-label="{_quoted(label)}" class="chart"'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda found: f"<svg {attributes} {found[1]}>", text, count=1)


def _quoted(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
