"""From the content of a report, of a search or an evaluation, to the page and to the charts as files."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from models.evaluation.intervals import wilson_interval
from models.evaluation.metrics import ClassificationMetrics
from tuning.common.formatting import format_score, network_name
from tuning.common.names import TEST_METRIC
from tuning.reporting.charts import Chart, charts, confusion_chart, render_figure
from tuning.reporting.content import EvaluationContent, ReportContent
from tuning.reporting.theme import DARK, LIGHT, css, png, svg
from tuning.search.selection import pareto_labels

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
REPORT, EVALUATION = "report.html", "evaluation.html"
ROWS = 10  # of the leaderboard before the rest is folded away
SCORES = {TEST_METRIC: "balanced accuracy", "test_accuracy": "accuracy", "test_macro_f1": "macro-F1"}


def build_report(content: ReportContent) -> str:
    """Return the page: HTML that holds all it needs, runs no script and asks no server for anything."""
    sections = {chart.name: _Section(chart) for chart in charts(content)}
    return _page(
        REPORT,
        content=content,
        winner=content.winner.trial,
        price=content.cost_of_winner,
        charts=sections,
        scores=[
            (label, content.candidate.metrics[name], content.candidate.intervals.get(name))
            for name, label in SCORES.items()
        ],
        classes=_class_rows(content.scores),
        rows=ROWS,
        fronts={one.trial.number: pareto_labels(one, content.costed_trials) for one in content.costed_trials},
    )


def build_evaluation(content: EvaluationContent) -> str:
    """Return the page of an evaluation, as ``build_report`` makes one."""
    chart = confusion_chart(content.scores, content.model)
    return _page(
        EVALUATION,
        content=content,
        charts={chart.name: _Section(chart)},
        scores=[
            (name.strip("_").replace("_", " "), value, content.intervals.get(name.strip("_")))
            for name, value in content.scores.to_dict("").items()
        ],
        classes=_class_rows(content.scores),
    )


def _page(template: str, **values: object) -> str:
    return _environment().get_template(template).render(light=css(LIGHT), dark=css(DARK), **values)


def build_chart_images(content: ReportContent) -> dict[str, bytes]:
    """Return the page's charts as PNGs, by the name of a file."""
    found = {}
    for chart in charts(content):
        with render_figure(chart) as figure:
            found[f"{chart.name}.png"] = png(figure)
    return found


class _Section:
    """A chart as the template uses it."""

    def __init__(self, chart: Chart) -> None:
        from markupsafe import Markup

        self.title, self.caption = chart.title, chart.caption
        with render_figure(chart) as figure:
            # Matplotlib has escaped the names in it; they are text between tags.
            self.drawing = Markup(svg(figure, chart.name, f"{chart.title}. {chart.caption}"))  # noqa: S704


def _class_rows(scores: ClassificationMetrics) -> list[dict[str, object]]:
    """Return each class with the 95 % intervals of its recall and precision (Wilson's, as for accuracy)."""
    answered = [sum(column) for column in zip(*scores.confusion, strict=True)]
    rows: list[dict[str, object]] = []
    for at, one in enumerate(scores.per_class):
        right = scores.confusion[at][at]
        intervals = {
            name: wilson_interval(right, of) if of else None
            for name, of in (("recall", one.support), ("precision", answered[at]))
        }
        rows.append({"scores": one, **intervals})
    return rows


@lru_cache(maxsize=1)
def _environment() -> Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_uri=lambda picture: f"data:image/webp;base64,{base64.b64encode(picture).decode()}",
        score=format_score,
        network=network_name,
        percent=lambda share: f"{100 * share:.1f} %",
    )
    return environment


def _printable(value: object) -> object:
    """Return a text that a page can hold: names of files may be no Unicode, or turn what follows them around."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in value)
