"""The report of a search or an evaluation: an HTML file that needs nothing else, and the charts as pictures."""

from tuning.views.report.content import EvaluationContent, Example, Mistake, Pair, ReportContent, ReportTrial
from tuning.views.report.page import build_evaluation, build_pictures, build_report

__all__ = [
    "EvaluationContent",
    "Example",
    "Mistake",
    "Pair",
    "ReportContent",
    "ReportTrial",
    "build_evaluation",
    "build_pictures",
    "build_report",
]
