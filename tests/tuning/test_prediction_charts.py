"""The report's charts of the predictions on the test images."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.tuning.factories import candidate
from tests.tuning.report_factory import Page, built_report, report_content, undrawn_report
from tuning.reporting.content import EvaluatedWinner
from tuning.reporting.prediction_charts import (
    caption_confidence,
    caption_precision_recall,
    caption_roc,
    draw_confidence,
    draw_precision_recall,
    draw_roc,
    has_curves,
)

LABELS = np.array([0, 0, 0, 1, 1])
DOG_PROBABILITY = np.array([0.1, 0.2, 0.7, 0.6, 0.9])  # one cat of three looks more like a dog than one of the dogs


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def winner(labels: np.ndarray = LABELS, positive: np.ndarray = DOG_PROBABILITY) -> EvaluatedWinner:
    return EvaluatedWinner(candidate(), 0.5, np.stack([1 - positive, positive], axis=1), labels)


def test_the_captions_name_the_positive_class_and_the_areas() -> None:
    assert caption_roc(winner()).startswith("Area under the curve (ROC AUC): 83.3%. Positive class: dog, 2 of 5 test")
    # AP: 1 at recall 0.5, then 2 of 3 at recall 1.
    assert caption_precision_recall(winner()).startswith("Average precision (AP): 83.3%. Positive class: dog")


def test_the_models_own_decision_is_on_the_curves() -> None:
    (roc,), (precision_recall,) = draw_roc(winner()).axes, draw_precision_recall(winner()).axes
    decision = {line.get_label(): line.get_xydata().tolist() for line in roc.lines}["at 50%"]
    assert decision == [pytest.approx([1 / 3, 1])]
    curve = {line.get_label(): line.get_xydata().tolist() for line in roc.lines}["model"]
    assert pytest.approx([1 / 3, 1]) in curve
    points = {line.get_label(): line.get_xydata().tolist() for line in precision_recall.lines}
    assert points["at 50%"] == [pytest.approx([1, 2 / 3])]
    assert points["at 50%"][0] in [pytest.approx(point) for point in points["model"]]


def test_a_model_that_never_predicts_the_positive_class_has_curves() -> None:
    never = winner(positive=np.full(5, 0.3))
    assert "50.0%" in caption_roc(never)
    draw_precision_recall(never)


def test_curves_need_two_classes_with_test_images() -> None:
    assert has_curves(winner())
    assert not has_curves(winner(labels=np.zeros(5, dtype=np.int64)))
    three = EvaluatedWinner(candidate(classes=("a", "b", "c")), 0.5, np.eye(3), np.arange(3))
    assert not has_curves(three)


def test_right_and_wrong_images_have_a_histogram_each() -> None:
    correct, wrong = draw_confidence(winner()).axes
    assert (correct.get_ylabel(), wrong.get_ylabel()) == ("correct images", "wrong images")
    counts = [
        [(round(bar.get_x() + bar.get_width() / 2, 3), bar.get_height()) for bar in axes.patches]
        for axes in (correct, wrong)
    ]
    assert [(x, count) for x, count in counts[0] if count] == [(0.625, 1), (0.825, 1), (0.925, 2)]
    assert [(x, count) for x, count in counts[1] if count] == [(0.725, 1)]
    assert "4 correct images, median 85.0%; 1 wrong image, median 70.0%." in caption_confidence(winner())


def test_without_a_mistake_there_is_one_histogram() -> None:
    (axes,) = draw_confidence(winner(labels=(DOG_PROBABILITY > 0.5).astype(np.int64))).axes
    assert sum(bar.get_height() for bar in axes.patches) == 5


def test_only_a_report_of_two_classes_has_the_curves() -> None:
    page = Page(built_report(report_content(classes=("cat", "<b>dog"))))
    assert page.open == []
    assert "Positive class: <b>dog, 15 of 30 test images" in page.text
    assert {"roc-figure", "precision-recall-figure", "confidence-figure"} <= set(page.values("id"))
    assert not {"roc-figure", "precision-recall-figure"} & set(Page(undrawn_report(report_content())).values("id"))
