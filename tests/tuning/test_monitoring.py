"""Monitoring: drift of each property, quiet windows, records that are read, and accuracy in use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from models.packaging.recording import image_id
from tuning.monitoring.drift import MIN_IMAGES, compare
from tuning.monitoring.live_accuracy import live_accuracy, read_labels
from tuning.monitoring.records import Records, read_records
from tuning.monitoring.reference import MonitoringReference, load_reference
from tuning.monitoring.timeline import MAX_BINS, time_bins
from tuning.workflows.monitor import headline

CLASSES = ("cat", "dog", "cow")
PACKAGE = "0123456789abcdef"


def reference(count: int = 300, seed: int = 0) -> MonitoringReference:
    generator = np.random.default_rng(seed)
    return MonitoringReference(
        generator.choice(3, count, p=(0.5, 0.3, 0.2)),
        generator.beta(8, 2, count),
        generator.uniform(size=count),
        generator.normal(size=(count, 8)),
    )


def records(count: int = 200, seed: int = 1) -> Records:
    same = reference(count, seed)
    return Records(
        times=np.arange(count, dtype=np.float64) * 3600,
        images=np.array([f"{number:016x}" for number in range(count)]),
        classes=same.classes,
        confidence=same.confidence,
        latency_ms=np.full(count, 20.0),
        novelty=same.novelty,
        summaries=same.summaries,
    )


def drifted(window: Records, reference_seed: int = 0) -> list[str]:
    return [test.name for test in compare(reference(seed=reference_seed), window, len(CLASSES)) if test.is_drift]


@pytest.mark.parametrize("reference_seed", range(1000, 1004))
def test_windows_like_the_test_images_give_at_most_one_false_alarm_in_thirty(reference_seed: int) -> None:
    assert sum(bool(drifted(records(seed=seed), reference_seed)) for seed in range(1, 31)) <= 1


def test_each_property_is_compared_on_its_own() -> None:
    window = records()
    assert drifted(window._replace(classes=np.where(window.classes == 0, 2, window.classes))) == ["classes"]
    assert drifted(window._replace(confidence=window.confidence * 0.8)) == ["confidence"]
    assert window.novelty is not None
    assert window.summaries is not None
    assert drifted(window._replace(novelty=window.novelty**0.4)) == ["novelty"]
    shifted = window.summaries + np.array([0, 0, 1.0, 0, 0, 0, 0, 0])
    assert drifted(window._replace(summaries=shifted)) == ["feature 3"]


def test_a_significant_but_small_difference_is_no_drift() -> None:
    window = records(count=20_000)
    small = window._replace(confidence=window.confidence - 0.02)
    (confidence,) = [test for test in compare(reference(20_000), small, 3) if test.name == "confidence"]
    assert confidence.p_value < 0.001
    assert not confidence.is_drift


def test_a_class_that_was_never_predicted_before_is_drift() -> None:
    before = reference()._replace(classes=np.zeros(300, dtype=np.int64))
    window = records()._replace(classes=np.ones(200, dtype=np.int64))
    assert "classes" in [test.name for test in compare(before, window, 3) if test.is_drift]
    assert compare(before, window._replace(classes=np.zeros(200, dtype=np.int64)), 3)[0].p_value == 1


def test_too_few_answers_are_not_compared() -> None:
    window = records(MIN_IMAGES - 1)
    assert compare(reference(), window, 3) == []
    assert headline(window, [], None) == "too few answers to compare: 29 images, at least 30 are needed"


def test_a_package_without_novelty_is_compared_by_class_and_confidence() -> None:
    before = reference()._replace(novelty=None, summaries=None)
    assert [test.name for test in compare(before, records(), 3)] == ["classes", "confidence"]


def test_the_reference_of_a_package_is_loaded_with_and_without_novelty(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", classes=[0, 1], confidence=[0.5, 0.75])
    loaded = load_reference(tmp_path / "reference.npz")
    assert loaded.classes.tolist() == [0, 1]
    assert loaded.novelty is None
    assert loaded.summaries is None


def test_the_metrics_over_time_count_every_answer_once() -> None:
    bins = time_bins(records(), CLASSES)
    assert len(bins) == MAX_BINS
    assert sum(each.metrics["images"] for each in bins) == 200
    assert all(sum(each.metrics[f"share_{name}"] for name in CLASSES) == pytest.approx(1) for each in bins)
    assert [each.time_s for each in bins] == sorted(each.time_s for each in bins)
    assert len(time_bins(records(1), CLASSES)) == 1


# --- records ---


def write_rows(folder: Path, *rows: dict[str, object], name: str = "2026-11-30-1.jsonl") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(time_s: float, label: str = "cat", **fields: object) -> dict[str, object]:
    answer = {"time": time_s, "model": PACKAGE, "latency_ms": 20, "image": "0" * 16, "label": label, "score": 0.75}
    return {**answer, **fields}


def test_records_of_a_package_and_a_time_are_read_in_order(tmp_path: Path) -> None:
    write_rows(tmp_path, row(30.0, "dog"), row(99.0), row(20.0, model="another"))
    write_rows(tmp_path, row(10.0), row(5.0), name="2026-11-30-2.jsonl")
    with (tmp_path / "2026-11-30-2.jsonl").open("a") as file:
        file.write('["not ours"]\n{"time": 11.0, "mod')  # of a killed process
    window = read_records(tmp_path, PACKAGE, CLASSES, 10, 50)
    assert window.times.tolist() == [10, 30]
    assert window.classes.tolist() == [0, 1]
    assert window.novelty is None


def test_missing_records_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be the folder that FREEZELINE_RECORD named"):
        read_records(tmp_path / "nowhere", PACKAGE, CLASSES, 0, 1)
    write_rows(tmp_path, row(1.0, model="another"))
    with pytest.raises(DataError, match="got 1 of other versions"):
        read_records(tmp_path, PACKAGE, CLASSES, 0, 5)


# --- accuracy in use ---


def test_the_accuracy_in_use_is_that_of_the_last_answer_for_each_labeled_image() -> None:
    window = records(100)._replace(classes=np.zeros(100, dtype=np.int64))
    window.images[1] = window.images[0]
    labels = {str(image): "cat" if number < 60 else "dog" for number, image in enumerate(window.images)}
    live = live_accuracy(window, {**labels, "f" * 16: "cow"}, CLASSES, proven=0.9)
    assert (live.num_images, live.accuracy) == (99, pytest.approx(59 / 99))
    assert live.is_below
    assert headline(window, [], live) == "accuracy 59.6% in use, below the 90.0% proven on test images"
    assert not live._replace(proven=live.high - 0.001).is_below


def test_labels_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="must name images that were answered"):
        live_accuracy(records(), {"f" * 16: "cat"}, CLASSES, 0.9)


def test_labels_are_a_table_of_files_or_of_ids(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red" if name == "a.png" else "blue").save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("path,label\na.png,cat\nb.png,dog\n")
    by_id = {image_id(tmp_path / "a.png"): "cat", image_id(tmp_path / "b.png"): "dog"}
    assert read_labels(tmp_path / "labels.csv") == by_id
    (tmp_path / "ids.csv").write_text("image,label\n" + "".join(f"{key},{label}\n" for key, label in by_id.items()))
    assert read_labels(tmp_path / "ids.csv") == by_id


def test_a_missing_table_of_labels_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels must be a table of images and labels, got .* which is no file"):
        read_labels(tmp_path / "nowhere.csv")
