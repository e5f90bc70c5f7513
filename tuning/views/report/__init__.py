"""The report of a finished search: one HTML file that needs nothing else, and its charts as pictures."""

from tuning.views.report.content import Example, Mistake, Pair, ReportContent, ReportTrial
from tuning.views.report.page import build_pictures, build_report

__all__ = ["Example", "Mistake", "Pair", "ReportContent", "ReportTrial", "build_pictures", "build_report"]
