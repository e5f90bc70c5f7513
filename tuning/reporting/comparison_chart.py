"""The chart that compares the progress of several searches."""

from __future__ import annotations

from collections.abc import Sequence

from tuning.tracking.search_summary import SearchSummary


def comparison_chart(searches: Sequence[SearchSummary]) -> bytes:
    """Return a PNG of each search's best validation score over the minutes since its first trial began."""
    import matplotlib as mpl

    from tuning.reporting.theme import BLUE, FIGURE_SIZE, GREEN, INK, MUTED, ORANGE, RED, STYLE, png

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines = [(color, style) for style in ("-", "--", ":") for color in (BLUE, ORANGE, GREEN, RED, MUTED)]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=FIGURE_SIZE)
        for search, (color, style) in zip(searches, lines, strict=False):
            minutes = [point.seconds / 60 for point in search.improvements]
            scores = [point.score for point in search.improvements]
            if scores:  # the line continues at the best score until the search's end
                label = f"{search.name} {search.short_id}"
                steps = [*minutes, search.minutes], [*scores, scores[-1]]
                axes.plot(*steps, color=color, linestyle=style, drawstyle="steps-post", label=label)
        axes.set(xlabel="minutes since the first trial began", ylabel="best validation balanced accuracy")
        axes.legend(loc="lower right", labelcolor=INK)
        image = png(figure)
        plt.close(figure)
    return image
