"""The chart that compares searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl

from tuning.reporting.drawing import new_figure, percent_axis
from tuning.reporting.theme import BLUE, GREEN, INK, MUTED, ORANGE, RED, STYLE, png
from tuning.tracking.search_summary import SearchSummary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THICKEST, THINNEST = 5.0, 1.4  # points; of the first and the last line


def comparison_chart(searches: Sequence[SearchSummary]) -> bytes:
    """Return a PNG of the figure of ``draw_comparison``."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(STYLE):
        figure = draw_comparison(searches)
        image = png(figure)
        plt.close(figure)
    return image


def draw_comparison(searches: Sequence[SearchSummary]) -> Figure:
    """Draw each search's best validation score from its first trial's start to its last trial's end.

    Each line is thinner than the one before, so that none hides another where scores are equal.
    """
    styles = [(color, style) for style in ("-", "--", ":") for color in (BLUE, ORANGE, GREEN, RED, MUTED)]
    figure, axes = new_figure()
    scored = [search for search in searches if search.improvements]
    step = (THICKEST - THINNEST) / max(1, len(scored) - 1)
    for number, (search, (color, style)) in enumerate(zip(scored, styles, strict=False)):
        minutes = [*(point.seconds / 60 for point in search.improvements), search.trials_s / 60]
        scores = [point.score for point in search.improvements]
        line = {"color": color, "linestyle": style, "linewidth": THICKEST - number * step, "drawstyle": "steps-post"}
        label = f"{search.name} {search.short_id}"
        axes.plot(minutes, [*scores, scores[-1]], label=label, clip_on=False, solid_capstyle="butt", **line)
    axes.set(xlabel="minutes since the first trial began", ylabel="best validation balanced accuracy")
    axes.set_xlim(left=0)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.0))
    percent_axis(axes.yaxis)
    axes.legend(loc="lower right", labelcolor=INK)
    return figure
