"""The charts and thumbnails of the report."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from data.dataset.dataset import Dataset, Sample
from data.findings import Finding
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing, normalize
from models.evaluation.metrics import compute_metrics
from models.profiling.serving_cost import ServingCost
from models.trial_config import FeaturesConfig
from tests.tuning.factories import trial_record
from tests.tuning.report_factory import report_content, report_result, report_trial
from tuning.reporting.charts import build_charts, confusion_chart
from tuning.reporting.classified_images import ClassifiedSamples
from tuning.reporting.drawing import active_minutes, jitter, score_limits
from tuning.reporting.importance import importances, to_study
from tuning.reporting.page import render_charts
from tuning.reporting.quality_charts import draw_confusion, draw_cost
from tuning.reporting.thumbnails import _denormalized, audit_pairs, train_examples, val_examples
from tuning.reporting.trial_charts import (
    curve_trials,
    draw_curves,
    draw_freeze,
    draw_history,
    has_losses,
    pack_lanes,
)
from tuning.search.selection import serving_spec_of

# --- charts ---


def test_each_chart_is_drawn_as_png_too() -> None:
    charts = render_charts(build_charts(report_content()))
    trial_charts = {"history", "timeline", "curves", "losses", "freeze"}
    names = {*trial_charts, "latency", "size", "reliability", "confidence", "confusion", "balance"}
    assert {chart.name for chart in charts} == names
    for chart in charts:
        image = Image.open(io.BytesIO(chart.png))
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(10**6) or ()) > 10


def test_without_the_times_of_its_trials_a_search_has_no_timeline() -> None:
    trials = [trial.model_copy(update={"started_s": None}) for trial in report_result().trials]
    charts = build_charts(report_content(result=report_result(trials=tuple(trials), winner=trials[1])))
    assert "timeline" not in {chart.name for chart in charts}
    assert render_charts(charts[:1])  # the history is then drawn by trial number


def test_the_minutes_of_the_trials_leave_out_the_pause_before_a_resumed_search() -> None:
    first, second, third = (report_trial(number, 0.5) for number in range(3))  # a minute each, starting every 30 s
    later = third.model_copy(update={"started_s": 2_000_000.0, "ended_s": 2_000_120.0})
    assert active_minutes([later, first, second]) == {"uid0": (0, 1), "uid1": (0.5, 1.5), "uid2": (1.5, 3.5)}


def test_a_trial_that_still_runs_is_not_in_the_timeline() -> None:
    running = report_trial(1, 0.5).model_copy(update={"status": "running", "ended_s": None})
    assert list(active_minutes([report_trial(0, 0.5), running])) == ["uid0"]


def test_trials_that_overlap_are_in_different_lanes() -> None:
    assert pack_lanes({"a": (0, 2), "b": (1, 3), "c": (2, 4), "d": (2.5, 5)}) == {"a": 0, "b": 1, "c": 0, "d": 2}


def test_equal_positions_are_spread_around_their_own() -> None:
    assert jitter([1.0, 0.5, 1.0], 0.2) == pytest.approx([0.95, 0.5, 1.05])
    assert jitter([1.0, 1.0, 1.0], 0.3) == pytest.approx([0.9, 1.0, 1.1])


def test_a_low_outlier_does_not_set_the_range_of_the_scores() -> None:
    low, high = score_limits([0.2, 0.9, 0.92, 0.94, 0.96])
    assert 0.85 < low < 0.9
    assert 0.96 < high <= 1
    low, high = score_limits([1.0, 1.0])
    assert low < 1 <= high < 1.01


def test_a_score_axis_has_no_tick_above_100_percent() -> None:
    trials = (report_trial(0, 1.0), report_trial(1, 1.0), report_trial(2, 0.995))
    result = report_result(trials=trials, winner=trials[0])
    for figure in (draw_history(result), draw_freeze(result), draw_curves(result)):
        figure.canvas.draw()
        (axes,) = figure.axes
        ticks = [tick for tick in axes.get_yticks() if tick >= axes.get_ylim()[0]]
        assert max(ticks) == pytest.approx(1)
        plt.close(figure)


def test_the_legend_has_only_origins_that_the_chart_shows() -> None:
    scores = [0.2, *([0.9] * 8)]  # the default, trial 0, is a low outlier
    trials = tuple(report_trial(number, score) for number, score in enumerate(scores))
    figure = draw_history(report_result(trials=trials, winner=trials[1]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sampler", "best so far"]
    plt.close(figure)


def test_the_learning_curves_are_those_of_the_five_best_and_of_all_that_are_no_probes() -> None:
    probes = [report_trial(number, 0.5 + number / 100).model_copy(update={"origin": "probe"}) for number in range(8)]
    trials = (*probes, report_trial(8, 0.3, "pruned"))
    result = report_result(trials=trials, winner=probes[7])
    assert [trial.number for trial in curve_trials(result)] == [7, 6, 5, 4, 3, 8]


def test_the_curves_of_a_long_search_are_those_of_its_best_trials_and_the_winner() -> None:
    trials = tuple(report_trial(number, number / 100) for number in range(90))
    shown = curve_trials(report_result(trials=trials, winner=trials[3]))
    assert [trial.number for trial in shown] == [*range(89, 49, -1), 3]


def test_losses_need_two_epochs_with_both_losses() -> None:
    trial = report_trial(0, 0.5)
    assert has_losses(trial)
    assert not has_losses(trial.model_copy(update={"history": trial.history[:1]}))
    assert not has_losses(trial_record(0, 0.5))


def test_the_colors_of_the_confusion_matrix_are_shares_of_the_true_class() -> None:
    counts = np.repeat([0, 0, 1, 1, 1, 1], [1, 1, 2, 2, 2, 2])
    predicted = np.repeat([0, 1, 1, 1, 1, 0], [1, 1, 2, 2, 2, 2])
    scores = compute_metrics(np.eye(2)[predicted], counts, ("a", "b"))
    (axes,) = draw_confusion(scores).axes
    opacity = {(round(cell.get_x() + 0.5), round(cell.get_y() + 0.5)): cell.get_alpha() for cell in axes.patches}
    assert opacity == pytest.approx({(0, 0): 0.325, (1, 0): 0.325, (0, 1): 0.2375, (1, 1): 0.4125})
    assert {text.get_text() for text in axes.texts} == {"1\n50%", "2\n25%", "6\n75%"}
    plt.close("all")


def test_a_larger_confusion_matrix_is_drawn_larger() -> None:
    widths = []
    for num_classes in (2, 5, 30):
        labels = np.arange(num_classes)
        scores = compute_metrics(np.eye(num_classes), labels, [f"class {label}" for label in labels])
        widths.append(draw_confusion(scores).get_figwidth())
    assert widths == sorted(set(widths))
    plt.close("all")


def test_a_score_axis_ends_at_one_and_each_network_has_its_trials_number() -> None:
    trials = tuple(trial.model_copy(update={"history": ()}) for trial in report_result().trials)
    scored = [report_trial(number, score, image_size=32 + number) for number, score in enumerate((1.0, 0.99, 0.98))]
    costs = {serving_spec_of(trial, 3): ServingCost(latency_ms=trial.number + 1, mb=1) for trial in scored}
    content = report_content(result=report_result(trials=(*scored, *trials[3:]), winner=scored[0], costs=costs))
    (axes,) = draw_cost(content, "latency_ms").axes
    assert axes.get_ylim()[1] == 1
    assert {text.get_text() for text in axes.texts} == {"0", "1", "2"}
    plt.close("all")


def test_only_settings_that_differ_have_an_importance() -> None:
    trials = [report_trial(number, 0.5 + number / 50, lr=1e-3 * (number + 1), depth=number) for number in range(20)]
    assert set(importances(trials)) == {"lr", "freeze_fraction"}
    content = report_content(result=report_result(trials=tuple(trials)))
    (chart,) = [chart for chart in build_charts(content) if chart.name == "importance"]
    assert chart.caption.startswith("Estimated from 20 complete trials without probes.")


@pytest.mark.parametrize("change", [{"origin": "probe"}, {"origin": "rerun"}, {"status": "out of time"}])
def test_importance_needs_20_complete_trials_that_are_not_probes(change: dict[str, str]) -> None:
    trials = [report_trial(number, 0.5 + number / 50, lr=1e-3 * (number + 1)) for number in range(20)]
    trials[7] = trials[7].model_copy(update=change)
    assert importances(trials) == {}


def test_a_study_of_the_trials_has_those_with_a_score() -> None:
    study = to_study(report_result().trials)
    assert [trial.state.name for trial in study.trials].count("PRUNED") == 1
    assert len(study.trials) == 6


def test_charts_restore_matplotlibs_settings_and_close_their_figures() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    render_charts(build_charts(report_content()))
    assert plt.get_fignums() == []
    assert {name: value for name, value in mpl.rcParams.items() if before[name] != value} == {}


# --- thumbnails ---


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Return a data set of two classes with real files."""
    samples = []
    for split in ("train", "val", "test"):
        for number in range(6):
            path = f"{split}{number}.png"
            Image.new("RGB", (40, 30), (40 * number, 90, 200)).save(tmp_path / path)
            samples.append(Sample(path=path, label=number % 2, split=split, content_hash=path))  # type: ignore[arg-type]
    return Dataset(name="d", root=tmp_path, classes=("cat", "dog"), samples=tuple(samples), median_short_side=30)


def test_the_mistakes_are_the_most_confident_ones(dataset: Dataset) -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    dog_probability = np.array([0.2, 0.4, 0.9, 0.9, 0.6, 0.02])
    probabilities = np.stack([1 - dog_probability, dog_probability], axis=1)
    classified = ClassifiedSamples(dataset, dataset.split("test"), probabilities, labels)
    mistakes = classified.mistakes()
    assert [(mistake.path, mistake.true_label, mistake.predicted_label) for mistake in mistakes] == [
        ("test5.png", "dog", "cat"),
        ("test2.png", "cat", "dog"),
        ("test1.png", "dog", "cat"),
        ("test4.png", "cat", "dog"),
    ]
    assert mistakes[0].probability == pytest.approx(0.98)
    assert mistakes[0].true_label_probability == pytest.approx(0.02)
    (dataset.root / "test5.png").unlink()
    assert len(classified.mistakes()) == 3


def test_correct_images_are_spread_over_the_classes_and_the_most_confident_of_some_rows_come_first(
    dataset: Dataset,
) -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    dog_probability = np.array([0.2, 0.1, 0.3, 0.9, 0.1, 0.8])
    probabilities = np.stack([1 - dog_probability, dog_probability], axis=1)
    classified = ClassifiedSamples(dataset, dataset.split("test"), probabilities, labels)
    assert [image.path for image in classified.correct()] == [f"test{row}.png" for row in (0, 3, 2, 5, 4)]
    assert [image.path for image in classified.most_confident((0, 3, 4), 2)] == ["test3.png", "test4.png"]
    assert classified.most_confident((), 2) == ()


@pytest.mark.parametrize("views_shown", [0, 2])
@pytest.mark.parametrize("mix", ["none", "cutmix"])
def test_training_examples_show_the_augmented_images_of_the_training(
    dataset: Dataset, views_shown: int, mix: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    trial = trial_record()
    changes = {
        "batches": BatchConfig(augmentation="flip", mix=mix),  # type: ignore[arg-type]
        "features": FeaturesConfig(cached_augmentations=views_shown),
    }
    config = trial.config.model_copy(update=changes)
    trial = trial.model_copy(update={"config": config, "runtime_info": {"views_shown": views_shown}})
    examples = train_examples(dataset, pixels, trial)
    assert [example.label for example in examples] == ["cat", "dog", "cat", "dog"]
    assert {len(example.augmented) for example in examples} == {views_shown or 4}
    for row, example in enumerate(examples):
        original, *augmented = (
            np.asarray(Image.open(io.BytesIO(webp))) for webp in (example.thumbnail, *example.augmented)
        )
        assert np.array_equal(original, pixels[row])
        expected = (original, original[:, ::-1])
        is_flip = [any(np.array_equal(image, flip) for flip in expected) for image in augmented]
        assert all(is_flip) or mix == "cutmix"


def test_without_augmentation_an_example_has_no_augmented_images(dataset: Dataset) -> None:
    trial = trial_record()
    config = trial.config.model_copy(update={"batches": BatchConfig(augmentation="none")})
    pixels = np.zeros((6, 32, 32, 3), np.uint8)
    examples = train_examples(dataset, pixels, trial.model_copy(update={"config": config}))
    assert {example.augmented for example in examples} == {()}
    assert [example.path for example in val_examples(dataset, pixels)] == [
        "val0.png",
        "val1.png",
        "val2.png",
        "val3.png",
    ]


def test_denormalization_inverts_normalization() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    preprocessing = Preprocessing(32)
    assert np.array_equal(_denormalized(normalize(pixels, preprocessing), preprocessing), pixels)


def test_audit_pairs_have_thumbnails_and_none_for_a_missing_file(dataset: Dataset) -> None:
    files = (("train0.png", "gone.png"), ("val0.png", "val1.png"))
    findings = (
        Finding(kind="near_duplicate", count=4, files=files, action="kept"),
        Finding(kind="unreadable", count=1, files=(("x",),), action="left out"),
    )
    audit = report_content().audit.model_copy(update={"root": dataset.root, "findings": findings})
    pairs = audit_pairs(audit)
    assert list(pairs) == ["near_duplicate"]
    assert [[thumbnail is not None for thumbnail in pair.thumbnails] for pair in pairs["near_duplicate"]] == [
        [True, False],
        [True, True],
    ]


def test_of_many_classes_the_most_confused_pairs_are_drawn() -> None:
    labels = np.repeat(np.arange(50), 4)
    predicted = labels.copy()
    predicted[:3], predicted[4] = 7, 9
    scores = compute_metrics(np.eye(50)[predicted], labels, [f"class {label}" for label in range(50)])
    chart = confusion_chart(scores, "the model")
    assert chart.title == "Most confused classes"
    (axes,) = chart.draw().axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["class 0 as class 7", "class 1 as class 9"]
    assert [bar.get_width() for bar in axes.patches] == [3, 1]
    plt.close("all")
