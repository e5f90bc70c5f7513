"""Factories of report contents and a parser of pages for the tests of the report."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from data.audit.report import Audit
from data.findings import Finding
from data.preprocessing import Preprocessing
from models.evaluation.calibration import ReliabilityBin
from models.evaluation.metrics import compute_metrics
from models.profiling.serving_cost import ServingCost
from tests.tuning.factories import candidate, trial_record
from tuning.common.promotion_types import Promotion
from tuning.common.trial_record import TrialRecord
from tuning.reporting.charts import build_charts
from tuning.reporting.classified_images import ClassifiedImage
from tuning.reporting.content import Decision, EvaluatedWinner, EvaluationContent, LabelIssues, ReportContent
from tuning.reporting.downloads import Table
from tuning.reporting.page import RenderedChart, build_report, render_charts
from tuning.reporting.provenance import Provenance
from tuning.reporting.thumbnails import Example, Pair, to_webp
from tuning.search.evidence import Member
from tuning.search.reruns import Improvement, RerunTrial
from tuning.search.search_result import SearchResult
from tuning.search.selection import serving_spec_of

HOSTILE_NAMES = ("<script>alert(1)</script>", '"onload=alert(1) $\\frac', "grüne Äpfel & Birnen")
THUMBNAIL = to_webp(Image.new("RGB", (8, 8), "red"))
VOID_ELEMENTS = {"meta", "img", "br", "path", "use", "rect", "image", "link"}


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self.open.pop() == tag, f"</{tag}> closes an element that is not open"

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute, in document order."""
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def report_trial(
    number: int, score: float | None, status: str = "complete", lr: float = 1e-3, depth: int = 9, image_size: int = 32
) -> TrialRecord:
    """Return a trial; without a score it has no epoch. Trials take a minute and overlap by half."""
    trial = trial_record(number, score, status)  # type: ignore[arg-type]
    history = tuple({**metrics, "train_loss": 0.5 / epoch} for epoch, metrics in enumerate(trial.history, start=1))
    started_s = 1_000_000.0 + 30 * number
    settings = {**trial.settings, "lr": lr, "freeze_fraction": depth / 18}
    runtime_info = {**trial.runtime_info, "freeze_depth": depth}
    config = trial.config.model_copy(update={"preprocessing": Preprocessing(image_size)})
    changes = {"history": history, "started_s": started_s, "ended_s": started_s + 60}
    return trial.model_copy(update={"settings": settings, "runtime_info": runtime_info, "config": config, **changes})


def report_result(**changes: Any) -> SearchResult:
    """Return the result of a search with seven trials of three networks."""
    trials = (
        report_trial(0, 0.7),
        report_trial(1, 0.9, lr=3e-3, depth=18),
        report_trial(2, 0.5, "pruned", lr=1e-2),
        report_trial(3, None, "failed", lr=1e-1),
        report_trial(4, 0.8, lr=2e-3, depth=3, image_size=64),
        report_trial(5, 0.85, lr=5e-3, depth=12, image_size=48),
        report_trial(6, 0.75, lr=5e-4, depth=6),
    )
    costs = {
        serving_spec_of(trials[1], 3): ServingCost(latency_ms=9, mb=14),
        serving_spec_of(trials[4], 3): ServingCost(latency_ms=3, mb=20),
        serving_spec_of(trials[5], 3): ServingCost(latency_ms=10, mb=15),
    }
    reruns = (RerunTrial(trials[1], (0.9, 0.88)),)
    result = SearchResult(
        trials=trials,
        winner=trials[1],
        members=(Member(trials[1]),),
        choice=None,
        reruns=reruns,
        improvement=Improvement(0.19, 0.05),
        gains=(),
        costs=costs,
        limits={"latency_ms": 12.5},
        num_classes=3,
    )
    return dataclasses.replace(result, **changes)


PROVENANCE = Provenance(
    recipe="auto",
    budget="5 min or 16 trials",
    seed=3,
    minutes=8.5,
    started="2026-11-24 17:50:00 UTC",
    ended="2026-11-24 17:58:00 UTC",
    machine="a processor, 2 cores, no GPU",
    versions="Python 3.11.7, torch 2.14.1",
    run_url="http://127.0.0.1:5000/#/experiments/1/runs/run",
    train_command="freezeline train --run 7e57",
)
EVIDENCE = {"candidate": 0.8, "champion": 0.7, "low": 0.02, "high": 0.18, "p_value": 0.031, "gain": 0.1}
PROMOTION = Promotion(
    alias="champion",
    reason="better",
    evidence={**EVIDENCE, "wins": 5, "losses": 2, "num_images": 30},
    won_images=(1, 2, 3, 4, 5),
    lost_images=(0, 7),
)


def report_content(
    classes: tuple[str, ...] = HOSTILE_NAMES, result: SearchResult | None = None, **changes: Any
) -> ReportContent:
    """Return the content of a report."""
    labels = np.arange(30, dtype=np.int64) % len(classes)
    probabilities = np.full((30, len(classes)), 0.1)
    probabilities[np.arange(30), labels] += 1 - 0.1 * len(classes)
    probabilities[0] = np.roll(probabilities[0], 1)
    audit = Audit(
        name="pets",
        root=Path("/pets"),
        fingerprint="f",
        counts={split: dict.fromkeys(classes, 10) for split in ("train", "val", "test")},
        num_skipped=1,
        imbalance=1.0,
        median_short_side=32,
        findings=(Finding(kind="duplicate", count=2, files=((f"{classes[0]}.png", "b.png"),), action="kept"),),
    )
    content = ReportContent(
        search="run",
        created="2026-11-24 18:00",
        winner=EvaluatedWinner(candidate(0.8, classes), 0.42, probabilities, labels),
        scores=compute_metrics(probabilities, labels, classes),
        decision=Decision("models:/pets@champion is now version 2: better.", "models:/pets@champion", 2, PROMOTION),
        result=result or report_result(),
        machine="a processor",
        provenance=PROVENANCE,
        warnings=("only 45 validation images: one image is 2.2 points",),
        reliability=([ReliabilityBin(20, 0.9, 0.7), ReliabilityBin(10, 0.5, 0.6)], [ReliabilityBin(30, 0.8, 0.7)]),
        mistakes=(ClassifiedImage(THUMBNAIL, f"{classes[0]}/x.png", classes[0], classes[1], 0.875, 0.0625, THUMBNAIL),),
        correct=(ClassifiedImage(THUMBNAIL, f"{classes[1]}/c.png", classes[1], classes[1], 0.75, 0.75),),
        label_issues=LabelIssues(
            3, (ClassifiedImage(THUMBNAIL, f"{classes[0]}/i.png", classes[0], classes[1], 0.9375, 0.03125),)
        ),
        won=(ClassifiedImage(THUMBNAIL, f"{classes[0]}/w.png", classes[0], classes[0], 0.625, 0.625),),
        lost=(ClassifiedImage(THUMBNAIL, f"{classes[1]}/l.png", classes[1], classes[0], 0.5, 0.375),),
        trials_table=Table("leaderboard.csv", "score,trial\n0.9,1\n"),
        predictions_table=Table("test_predictions.csv", f'file,true_class\nx.png,"{classes[0]}"\n'),
        train_examples=(Example("a/x.png", classes[0], THUMBNAIL, (THUMBNAIL, THUMBNAIL)),),
        val_examples=(Example("a/y.png", classes[1], THUMBNAIL),),
        audit=audit,
        pairs={"duplicate": (Pair((f"{classes[0]}.png", "b.png"), (THUMBNAIL, None)),)},
    )
    return dataclasses.replace(content, **changes)


def evaluation_content(**changes: Any) -> EvaluationContent:
    """Return the content of an evaluation's report."""
    report = report_content()
    content = EvaluationContent(
        model="models:/pets@champion",
        created="2026-11-24 18:00",
        data="pets",
        split="test",
        data_fingerprint="f",
        scores=report.scores,
        intervals={"accuracy": (0.7, 0.99)},
        calibration_error=0.0321,
        mistakes=report.mistakes,
    )
    return dataclasses.replace(content, **changes)


def built_report(content: ReportContent) -> str:
    """Return the HTML report of ``content`` with all its charts."""
    return build_report(content, render_charts(build_charts(content)))


def undrawn_report(content: ReportContent) -> str:
    """Return the HTML report of ``content`` with the titles and captions of its charts: drawing them takes seconds."""
    charts = [
        RenderedChart(chart.name, chart.title, chart.caption, Markup(), 500, b"") for chart in build_charts(content)
    ]
    return build_report(content, charts)
