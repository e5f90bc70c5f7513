"""Rendering the content of a report to an HTML page, and its charts to SVG and PNG."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from data.text import pluralize
from models.evaluation.intervals import wilson_interval
from models.evaluation.metrics import ClassificationMetrics
from tuning.common.formatting import cost_text, member_text, network_name
from tuning.common.names import TEST_METRIC
from tuning.reporting.charts import Chart, confusion_chart, render_figure
from tuning.reporting.content import EvaluationContent, ReportContent
from tuning.reporting.importance import MIN_IMPORTANCE_TRIALS, importance_trials
from tuning.reporting.summary import compares_champion, configuration, confused_pairs, score_axis
from tuning.reporting.theme import DARK, LIGHT, css, png, svg
from tuning.search.selection import MIN_PARETO_NETWORKS, pareto_labels
from tuning.search.strategy import phase_usage

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES_FOLDER = Path(__file__).parent / "templates"
MAX_PX_PER_INCH = 112  # of a chart in the page; larger would make its text larger than the page's
REPORT, EVALUATION = "report.html", "evaluation.html"
LEADERBOARD_ROWS = 10  # visible rows; the other trials are in a collapsed table
SCORE_IN_TEXT = re.compile(r"(?<![\d.])[01]\.\d{4}(?!\d)")  # of reasons and warnings; other numbers have fewer decimals
EVALUATION_SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "top5_accuracy": "top-5 accuracy",
}
SCORES = {TEST_METRIC: "balanced accuracy", "test_accuracy": "accuracy", "test_macro_f1": "macro-F1"}


def build_report(content: ReportContent, charts: Sequence[RenderedChart]) -> str:
    """Return the report as self-contained HTML: no script, no external resource."""
    return render_page(
        REPORT,
        content=content,
        result=content.result,
        winner=content.result.winner,
        charts={chart.name: chart for chart in charts},
        scores=[
            (label, content.candidate.metrics[name], content.candidate.intervals.get(name))
            for name, label in SCORES.items()
        ],
        axis=score_axis(content),
        cost=cost_text(content.candidate, content.result.winner_cost),
        compares_champion=compares_champion(content.decision.promotion),
        configuration=list(configuration(content.candidate)),
        has_augmentation=any(example.augmented for example in content.train_examples),
        confusions=confused_pairs(content.scores),
        classes=_class_rows(content.scores),
        uses_all_blocks=any(trial.config.network.head_features == "all" for trial in content.result.trials),
        leaderboard_rows=LEADERBOARD_ROWS,
        min_pareto_networks=MIN_PARETO_NETWORKS,
        min_importance_trials=MIN_IMPORTANCE_TRIALS,
        num_importance_trials=len(importance_trials(content.result.trials)),
        phases=phase_usage(content.result.trials),
        pareto_labels={
            costed.trial.number: pareto_labels(costed, content.result.costed_trials)
            for costed in content.result.costed_trials
        },
    )


def build_evaluation(content: EvaluationContent) -> str:
    """Return the report of an evaluation as self-contained HTML, like ``build_report``."""
    charts = render_charts([confusion_chart(content.scores, content.model)])
    return render_page(
        EVALUATION,
        content=content,
        charts={chart.name: chart for chart in charts},
        scores=[
            (label, getattr(content.scores, name), content.intervals.get(name))
            for name, label in EVALUATION_SCORES.items()
        ],
        confusions=confused_pairs(content.scores),
        classes=_class_rows(content.scores),
    )


def render_page(template: str, **values: object) -> str:
    """Return a page from its template, in the colors of the light and the dark mode."""
    return _environment().get_template(template).render(light=css(LIGHT), dark=css(DARK), **values)


class RenderedChart(NamedTuple):
    """A chart as SVG for the page, where it is ``width_px`` wide, and as PNG."""

    name: str
    title: str
    caption: str
    svg: Markup
    width_px: int
    png: bytes


def render_charts(charts: Sequence[Chart]) -> list[RenderedChart]:
    """Draw charts."""
    return [_render_chart(chart) for chart in charts]


def _render_chart(chart: Chart) -> RenderedChart:
    from markupsafe import Markup

    with render_figure(chart) as figure:
        # Matplotlib has escaped the names in the SVG; they are text between tags.
        text = Markup(svg(figure, chart.name, f"{chart.title}. {chart.caption}"))  # noqa: S704
        width_px = round(MAX_PX_PER_INCH * figure.get_figwidth())
        return RenderedChart(chart.name, chart.title, chart.caption, text, width_px, png(figure))


def _class_rows(scores: ClassificationMetrics) -> list[dict[str, Any]]:
    """Return each class with the 95% Wilson intervals of its recall and precision, the worst recall first."""
    num_predicted = [sum(column) for column in zip(*scores.confusion, strict=True)]
    rows: list[dict[str, Any]] = []
    for label, class_scores in enumerate(scores.per_class):
        correct = scores.confusion[label][label]
        intervals = {
            name: wilson_interval(correct, total) if total else None
            for name, total in (("recall", class_scores.support), ("precision", num_predicted[label]))
        }
        rows.append({"scores": class_scores, **intervals})
    return sorted(rows, key=lambda row: row["scores"].recall)


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
        data_uri=lambda thumbnail: f"data:image/webp;base64,{base64.b64encode(thumbnail).decode()}",
        member=member_text,
        network=network_name,
        percent=lambda share: "–" if share is None else f"{100 * share:.1f}%",
        interval=lambda ci: f"[{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]" if ci else "–",
        scores_in_percent=lambda text: SCORE_IN_TEXT.sub(lambda match: f"{float(match[0]):.1%}", text),
        duration=_duration,
        signed=lambda share: f"{100 * share:+.1f}%",
        params=_num_parameters,
        setting=lambda value: f"{value:g}" if isinstance(value, float) else str(value),
        plural=pluralize,
    )
    return environment


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60:.1f} min"


def _num_parameters(count: float | None) -> str:
    if count is None:
        return "–"
    return f"{count / 1e6:.1f}M" if count >= 1e5 else f"{count / 1e3:.1f}k"


def _printable(value: object) -> object:
    """Return a text with unprintable characters escaped: file names may be invalid Unicode or reverse the text."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in value)
