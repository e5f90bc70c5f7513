"""Searches side by side: a table for the terminal, and how each got better with time."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from tuning.tracking.searches import PastSearch

NOTHING = "-"
COLUMNS = ("search", "name", "trials", "minutes", "validation", "test", "best network", "became")
LEFT = ("search", "name", "best network", "became")
SHORT = 8  # characters of a run's id, enough to tell searches apart


def table(searches: Sequence[PastSearch]) -> Table:
    """Return a row for each search, in the order in which they were given."""
    shown = Table(title="Searches, balanced accuracy", title_justify="left", title_style="bold", box=None)
    for name in COLUMNS:
        shown.add_column(name, justify="left" if name in LEFT else "right", overflow="fold")
    for search in searches:
        shown.add_row(
            search.run_id[:SHORT],
            search.name,
            str(search.trials),
            f"{search.seconds / 60:.1f}",
            _score(search.score),
            _score(search.test),
            search.network or NOTHING,
            search.promotion or search.status.lower(),
        )
    return shown


def warnings(searches: Sequence[PastSearch]) -> list[str]:
    """Return what has to be known before the numbers are compared."""
    if len({search.data_fingerprint for search in searches}) > 1:
        return ["these searches are of different pictures, or split differently: their scores can't be compared"]
    return []


def picture(searches: Sequence[PastSearch]) -> bytes:
    """Return a chart as a PNG: the best validation score by minutes since the first trial began."""
    import matplotlib as mpl

    from tuning.views.report.theme import BLUE, GREEN, INK, MUTED, ORANGE, RED, SIZE, STYLE, png

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines = [(colour, style) for style in ("-", "--", ":") for colour in (BLUE, ORANGE, GREEN, RED, MUTED)]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=SIZE)
        for search, (colour, style) in zip(searches, lines, strict=False):
            minutes = [point.seconds / 60 for point in search.progress]
            scores = [point.score for point in search.progress]
            if scores:  # the best so far holds until the search's end
                label = f"{search.name} {search.run_id[:SHORT]}"
                steps = [*minutes, search.seconds / 60], [*scores, scores[-1]]
                axes.plot(*steps, color=colour, linestyle=style, drawstyle="steps-post", label=label)
        axes.set(xlabel="minutes since the first trial began", ylabel="best validation balanced accuracy")
        axes.legend(loc="lower right", labelcolor=INK)
        drawn = png(figure)
        plt.close(figure)
    return drawn


def _score(score: float | None) -> str:
    return NOTHING if score is None else f"{score:.4f}"
