"""The audit of labels: planted errors are found, shown with similar images, written as a manifest, and dropped."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from models.evaluation.label_issues import find_label_issues
from tuning.recipe.schema import Recipe
from tuning.workflows.label_audit import LabelAudit, audit_labels
from tuning.workflows.preflight import load_data

COLORS = {"green": (40, 170, 60), "red": (190, 40, 40)}
WRONG = ("green/3.png", "green/11.png", "red/7.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two easily learned classes of 24 images, three of which are in the wrong one."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, other in (("green", "red"), ("red", "green")):
        (folder / name).mkdir()
        for number in range(24):
            path = f"{name}/{number}.png"
            color = COLORS[other if path in WRONG else name]
            pixels = np.clip(rng.normal(color, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / path)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREEZELINE_HOME", str(tmp_path_factory.mktemp("home")))
        return load_dataset(str(folder))


@pytest.fixture(scope="module")
def audited(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> LabelAudit:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREEZELINE_HOME", str(tmp_path_factory.mktemp("home")))
        return audit_labels(dataset, lambda *_: None)


def found(audited: LabelAudit) -> list[str]:
    return [audited.dataset.samples[issue.row].path for issue in audited.issues]


def test_planted_errors_are_found_with_the_likely_class(audited: LabelAudit) -> None:
    assert sorted(found(audited)) == sorted(WRONG)
    for issue in audited.issues:
        assert issue.likely != audited.dataset.samples[issue.row].label
        assert issue.given_probability < 0.5 < issue.likely_probability


def test_the_most_similar_images_are_others_of_the_likely_class(audited: LabelAudit) -> None:
    for issue in audited.issues:
        assert issue.row not in issue.neighbors
        true_classes = [_true_label(audited, row) for row in issue.neighbors]
        assert true_classes == [issue.likely] * 3


def _true_label(audited: LabelAudit, row: int) -> int:
    sample = audited.dataset.samples[row]
    return 1 - sample.label if sample.path in WRONG else sample.label


def test_the_table_has_label_likely_class_and_file(audited: LabelAudit) -> None:
    table = audited.table()
    assert table.title == "Labels that are probably wrong (3 of 48)"
    assert sorted(row[3] for row in table.rows) == sorted(WRONG)
    assert {(row[0], row[1]) for row in table.rows} == {("green", "red"), ("red", "green")}


def test_the_manifest_has_all_images_and_can_be_edited_and_used_as_data(audited: LabelAudit, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    audited.write_manifest(file)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len(rows) == 48
    assert [Path(row["path"]).relative_to(audited.dataset.root).as_posix() for row in rows[:3]] == found(audited)
    assert [row["rank"] for row in rows[:4]] == ["1", "2", "3", ""]
    for row in rows[:3]:
        row["label"] = row["likely_label"]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    corrected = load_dataset(str(file))
    assert {(corrected.root / sample.path, sample.split) for sample in corrected.samples} == {
        (audited.dataset.root / sample.path, sample.split) for sample in audited.dataset.samples
    }
    moved = {sample.path.rpartition("photos")[2]: corrected.classes[sample.label] for sample in corrected.samples}
    assert sum(name == "red" for name in moved.values()) == 24 + 2 - 1


def test_the_contact_sheet_shows_each_issue_with_its_neighbors(audited: LabelAudit, tmp_path: Path) -> None:
    audited.write_sheet(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 2 * 158)  # two groups of four in a row


def test_drop_leaves_out_training_and_validation_images_only(audited: LabelAudit) -> None:
    kept = audited.without_issues()
    dropped = {file.path: file.reason for file in kept.skipped}
    is_test = {sample.path for sample in audited.dataset.split("test")}
    assert set(dropped) == set(WRONG) - is_test
    assert all(reason.startswith("is probably ") for reason in dropped.values())
    assert kept.findings[-1].kind == "label_issue"
    assert len(kept.samples) + len(dropped) == 48


def test_a_search_drops_images_only_if_it_is_asked_to(folder: Path) -> None:
    kept = load_data(Recipe(data=str(folder), weights="none", backbone="test_resnet"), lambda *_: None, lambda: False)
    assert len(kept.samples) == 48
    asked = Recipe(data=str(folder), weights="none", backbone="test_resnet", on_label_issue="drop")
    assert len(load_data(asked, lambda *_: None, lambda: False).samples) < 48


def test_a_class_keeps_its_images_if_most_of_them_have_an_issue(audited: LabelAudit) -> None:
    dataset = audited.dataset
    label = dataset.split("train")[0].label
    rows = [row for row, sample in enumerate(dataset.samples) if (sample.split, sample.label) == ("train", label)]
    issue = audited.issues[0]
    most = LabelAudit(dataset, [issue._replace(row=row) for row in rows[: len(rows) // 2 + 1]])
    assert most.without_issues() is dataset


def test_images_that_are_never_held_out_are_not_judged() -> None:
    logits = np.array([[3.0, 0.0], [np.nan, np.nan], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
    labels = np.array([0, 0, 1, 0, 1, 0])
    issues = find_label_issues(logits, labels, np.eye(6, dtype=np.float32))
    assert [issue.row for issue in issues] == [5]
