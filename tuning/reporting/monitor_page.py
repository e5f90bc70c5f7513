"""The page about a model in use."""

from __future__ import annotations

from dataclasses import dataclass

from tuning.monitoring.drift import MIN_EFFECT, SIGNIFICANCE, DriftTest
from tuning.monitoring.live_accuracy import LiveAccuracy
from tuning.monitoring.records import Records
from tuning.monitoring.reference import MonitoringReference
from tuning.monitoring.timeline import TimeBin
from tuning.reporting.monitoring_charts import monitoring_charts
from tuning.reporting.page import render_charts, render_page

PAGE = "monitor.html"


@dataclass(frozen=True)
class MonitorContent:
    """A window of a model in use; ``begin`` and ``end`` are the times of its first and last answer, as text."""

    model: str
    created: str
    begin: str
    end: str
    package_id: str
    headline: str
    reference: MonitoringReference
    window: Records
    classes: tuple[str, ...]
    tests: tuple[DriftTest, ...]
    bins: tuple[TimeBin, ...]
    live: LiveAccuracy | None

    @property
    def num_images(self) -> int:
        """The number of answers."""
        return len(self.window.times)

    @property
    def num_reference(self) -> int:
        """The number of test images."""
        return len(self.reference.classes)


def build_monitor_page(content: MonitorContent) -> str:
    """Return the page as self-contained HTML, like ``build_report``."""
    charts = render_charts(list(monitoring_charts(content.reference, content.window, content.bins, content.classes)))
    return render_page(
        PAGE,
        content=content,
        charts={chart.name: chart for chart in charts},
        significance=SIGNIFICANCE,
        min_effect=MIN_EFFECT,
    )
