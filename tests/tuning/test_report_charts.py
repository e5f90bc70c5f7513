"""The charts and thumbnails of the report."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset.dataset import Dataset, Sample
from data.findings import Finding
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing, normalize
from models.trial_config import FeaturesConfig
from tests.tuning.factories import trial_record
from tests.tuning.report_factory import report_content, report_result, report_trial
from tuning.reporting.charts import build_charts, importances, to_study
from tuning.reporting.page import build_chart_images
from tuning.reporting.thumbnails import _denormalized, audit_pairs, top_losses, train_examples, val_examples

# --- charts ---


def test_each_chart_is_a_png_named_like_its_chart_in_the_page() -> None:
    chart_images = build_chart_images(build_charts(report_content()))
    names = {"history", "curves", "freeze", "reliability", "latency", "size", "confusion"}
    assert set(chart_images) == {f"{name}.png" for name in names}
    for png in chart_images.values():
        image = Image.open(io.BytesIO(png))
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(10**6) or ()) > 10


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
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    build_chart_images(build_charts(report_content()))
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


def test_top_losses_are_the_most_confident_mistakes(dataset: Dataset) -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    dog_probability = np.array([0.2, 0.4, 0.9, 0.9, 0.6, 0.02])
    probabilities = np.stack([1 - dog_probability, dog_probability], axis=1)
    mistakes = top_losses(dataset, dataset.split("test"), probabilities, labels)
    assert [(mistake.path, mistake.true_label, mistake.predicted_label) for mistake in mistakes] == [
        ("test5.png", "dog", "cat"),
        ("test2.png", "cat", "dog"),
        ("test1.png", "dog", "cat"),
        ("test4.png", "cat", "dog"),
    ]
    assert mistakes[0].probability == pytest.approx(0.98)
    assert mistakes[0].true_label_probability == pytest.approx(0.02)
    (dataset.root / "test5.png").unlink()
    assert len(top_losses(dataset, dataset.split("test"), probabilities, labels)) == 3


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
