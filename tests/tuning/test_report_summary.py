"""The summary of a report: the axis of scores, the configuration, the confusions."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from models.evaluation.metrics import compute_metrics
from tests.tuning.factories import candidate, ensemble
from tests.tuning.report_factory import (
    HOSTILE_NAMES,
    Page,
    built_report,
    report_content,
    report_result,
    report_trial,
    undrawn_report,
)
from tuning.reporting.content import Decision
from tuning.reporting.summary import confused_pairs, score_axis


def test_scores_have_one_number_format() -> None:
    decision = Decision("not better: test accuracy 0.6667 vs. 1.0000 (p = 0.656).", "")
    text = Page(built_report(report_content(decision=decision))).text
    assert "not better: test accuracy 66.7% vs. 100.0% (p = 0.656)." in text
    assert re.findall(r"(?<![\d.])[01]\.\d{4}(?!\d)", text) == []


def test_marks_of_the_score_axis_are_at_their_scores() -> None:
    axis = score_axis(report_content())
    assert axis.low == pytest.approx(0.3)  # the majority class scores 0.33
    assert axis.marks[0] == ("this model", "test", 0.8, True, 71.43, 64.29, 14.28)
    assert [(mark.left, mark.interval_width) for mark in axis.marks[1:]] == [
        (17.14, 0),
        (4.76, 0),
        (85.71, 0),
        (57.14, 0),
    ]


def test_a_default_that_won_or_has_no_score_is_not_on_the_axis() -> None:
    won = score_axis(report_content(result=report_result(winner=report_trial(0, 0.7))))
    trials = (report_trial(0, None, "failed"), *report_result().trials[1:])
    failed = score_axis(report_content(result=report_result(trials=trials)))
    for axis in (won, failed):
        assert [mark.label for mark in axis.marks].count("default configuration") == 0


def test_the_report_of_an_ensemble_has_each_network_with_its_weight_and_configuration() -> None:
    winner = dataclasses.replace(report_content().winner, candidate=ensemble(candidate(0.8, HOSTILE_NAMES)))
    text = Page(undrawn_report(report_content(winner=winner))).text
    for part in (
        "mean of 2 networks",
        "10.0 MB, 12.5 ms",
        "first network",
        "Train its first network again",
    ):
        assert part in text
    for network in ("tf_efficientnet_lite0 at 32 px, weight 0.75", "tf_efficientnet_lite0 at 48 px, weight 0.25"):
        assert text.count(network) == 4  # the summary and three parts of its configuration
    axis = score_axis(report_content(winner=winner))
    assert [mark.note for mark in axis.marks if mark.label == "this model"] == ["test"]


def test_confusions_are_ordered_by_their_number_of_images() -> None:
    labels = np.repeat([0, 1, 2], [10, 5, 5])
    predicted = np.array([0] * 8 + [1, 1] + [1] * 3 + [2, 2] + [2] * 4 + [0])
    pairs = confused_pairs(compute_metrics(np.eye(3)[predicted], labels, ("a", "b", "c")))
    assert pairs == [("b", "c", 2, 0.4), ("a", "b", 2, 0.2), ("c", "a", 1, 0.2)]
