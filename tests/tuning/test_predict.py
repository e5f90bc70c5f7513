"""Predictions of a packaged model for files on disk, and their output formats."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.errors import DataError, TrackingError
from models.packaging.inference import BATCH_SIZE, Prediction, predict_files, predict_proba
from tests.tuning.factories import CLASSES, dataset
from tuning.cli.predict import find_files, write_predictions


class FakeModel:
    """Predicts the class that an image's file name begins with; a broken image gets an error, as in a real package."""

    def __init__(self, classes: Sequence[str] = CLASSES) -> None:
        self.classes = classes
        self.batches: list[int] = []

    def predict(self, data: list[Path]) -> pd.DataFrame:
        self.batches.append(len(data))
        rows = [[0.9 if file.name.startswith(name) else 0.1 for name in self.classes] for file in data]
        frame = pd.DataFrame(rows, columns=list(self.classes))
        frame.insert(0, "label", [self.classes[int(np.argmax(row))] for row in rows])
        frame.insert(1, "score", frame[list(self.classes)].max(axis=1))
        errors = ["is cut off" if "broken" in file.name else None for file in data]
        frame.insert(2, "error", pd.Series(errors, dtype=object))
        return frame


def touch_files(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / name for name in names]


# --- files ---


def test_a_file_may_have_pattern_characters_in_its_name(tmp_path: Path) -> None:
    (file,) = touch_files(tmp_path, "cat [1]*.png")
    assert find_files(str(file)) == [file]


def test_a_folder_yields_all_visible_files_below_it(tmp_path: Path) -> None:
    touch_files(tmp_path, "b.png", "a/c.jpg", ".hidden.png", ".git/d.png", "a/.e.png")
    assert find_files(str(tmp_path)) == [tmp_path / "a/c.jpg", tmp_path / "b.png"]


def test_a_hidden_folder_can_be_named_explicitly(tmp_path: Path) -> None:
    (file,) = touch_files(tmp_path, ".photos/a.png")
    assert find_files(str(tmp_path / ".photos")) == [file]


def test_links_to_folders_and_files_are_followed_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "store" / "a").mkdir(parents=True)
    (tmp_path / "store" / "a" / "1.png").touch()
    links = tmp_path / "links"
    links.mkdir()
    (links / "a").symlink_to(tmp_path / "store" / "a")
    (links / "2.png").symlink_to(tmp_path / "store" / "a" / "1.png")
    (links / "circle").symlink_to(links)
    assert find_files(str(links)) == [links / "2.png", links / "a" / "1.png"]


def test_a_pattern_yields_matching_files_but_no_folders(tmp_path: Path) -> None:
    touch_files(tmp_path, "b.jpg", "a.jpg", "c.png", "deep/d.jpg", "folder.jpg/x.png")
    assert find_files(f"{tmp_path}/*.jpg") == [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    assert tmp_path / "deep/d.jpg" in find_files(f"{tmp_path}/**/*.jpg")


def test_a_tilde_is_expanded_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files = touch_files(tmp_path, "a.png", "b.png")
    assert find_files("~/*.png") == files


@pytest.mark.parametrize("text", ["missing.png", "*.png", "."])
def test_a_text_that_matches_no_file_is_rejected(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match="must be an image file, a folder of files or a pattern that matches files, got '"
    ):
        find_files(text)


def test_the_home_of_an_unknown_user_is_rejected() -> None:
    with pytest.raises(DataError, match="must be an image file"):
        find_files("~unknown-user/cat.png")


# --- predictions ---


def test_predictions_are_made_in_batches_and_keep_the_order(tmp_path: Path) -> None:
    files = [tmp_path / f"{CLASSES[number % 2]}-{number}.png" for number in range(BATCH_SIZE + 1)]
    model = FakeModel()
    predictions = list(predict_files(model, files))
    assert [prediction.file for prediction in predictions] == files
    assert [prediction.label for prediction in predictions[:3]] == ["cat", "dog", "cat"]
    assert model.batches == [BATCH_SIZE, 1]


def test_a_prediction_has_a_score_and_a_probability_per_class(tmp_path: Path) -> None:
    (prediction,) = predict_files(FakeModel(), [tmp_path / "dog.png"])
    assert prediction == Prediction(tmp_path / "dog.png", "dog", 0.9, (("cat", 0.1), ("dog", 0.9)))


def test_a_broken_file_gets_an_error_and_the_others_a_label(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("cat.png", "broken.png", "dog.png")]
    predictions = list(predict_files(FakeModel(), files))
    assert [prediction.file for prediction in predictions] == files
    assert [prediction.label for prediction in predictions] == ["cat", "", "dog"]
    assert [prediction.error for prediction in predictions] == ["", "is cut off", ""]


def test_progress_is_reported_after_each_batch(tmp_path: Path) -> None:
    updates: list[tuple[str, int, int]] = []
    files = [tmp_path / f"cat-{number}.png" for number in range(BATCH_SIZE + 1)]
    assert len(list(predict_files(FakeModel(), files, lambda *update: updates.append(update)))) == BATCH_SIZE + 1
    assert updates == [("classifying", BATCH_SIZE, BATCH_SIZE + 1), ("classifying", BATCH_SIZE + 1, BATCH_SIZE + 1)]


def test_a_model_of_another_project_is_rejected(tmp_path: Path) -> None:
    class ForeignModel(FakeModel):
        def predict(self, data: list[Path]) -> pd.DataFrame:
            return super().predict(data)[["cat"]]

    with pytest.raises(TrackingError, match=r"packaged by Freezeline, .*, got cat; choose another model"):
        list(predict_files(ForeignModel(), [tmp_path / "cat.png"]))


def test_probabilities_follow_the_class_order_of_the_data_set(tmp_path: Path) -> None:
    pets = dataset(tmp_path, {"test": 1})
    probabilities, labels = predict_proba(FakeModel(("dog", "cat")), pets, pets.split("test"))
    np.testing.assert_array_equal(probabilities, [[0.9, 0.1], [0.1, 0.9]])
    np.testing.assert_array_equal(labels, [0, 1])


def test_a_model_with_other_classes_is_rejected(tmp_path: Path) -> None:
    pets = dataset(tmp_path, {"test": 1})
    with pytest.raises(TrackingError, match=r"must have the classes of pets \(cat, dog\), got cat, cow; "):
        predict_proba(FakeModel(("cat", "cow")), pets, pets.split("test"))


def test_the_error_names_an_image_that_the_model_cannot_read(tmp_path: Path) -> None:
    pets = dataset(tmp_path, {"test": 1})
    broken = pets.split("test")[0].model_copy(update={"path": "cat/broken.png"})
    with pytest.raises(
        TrackingError, match=r"cat/broken\.png must be readable by the model, but it is cut off; fix or remove"
    ):
        predict_proba(FakeModel(), pets, (broken,))


def test_a_class_may_be_called_score(tmp_path: Path) -> None:
    music = dataset(tmp_path, {"test": 1}).model_copy(update={"classes": ("cat", "score")})

    class RenamedColumnModel(FakeModel):
        def predict(self, data: list[Path]) -> pd.DataFrame:
            return super().predict(data).rename(columns={"dog": "score_"})

    assert predict_proba(RenamedColumnModel(), music, music.split("test"))[0].shape == (2, 2)


# --- output formats ---

GOOD = Prediction(Path("a b.png"), "Käse", 0.75, (("Käse", 0.75), ("dog", 0.25)), novelty=0.5)
BAD = Prediction(Path("b.png"), error='is "cut", off')


def test_json_output_has_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_predictions([GOOD, BAD], "json") == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "file": "a b.png",
            "label": "Käse",
            "score": 0.75,
            "novelty": 0.5,
            "probabilities": {"Käse": 0.75, "dog": 0.25},
        },
        {"file": "b.png", "error": 'is "cut", off'},
    ]


def test_csv_output_has_a_header_and_one_line_per_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_predictions([BAD, GOOD, BAD], "csv") == 2
    assert list(csv.reader(io.StringIO(capsys.readouterr().out))) == [
        ["file", "label", "score", "error", "novelty", "probability_Käse", "probability_dog"],
        ["b.png", "", "", 'is "cut", off', "", "", ""],
        ["a b.png", "Käse", "0.75", "", "0.5", "0.75", "0.25"],
        ["b.png", "", "", 'is "cut", off', "", "", ""],
    ]


def test_csv_output_without_a_readable_image_has_no_classes(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_predictions([BAD], "csv") == 1
    assert capsys.readouterr().out.splitlines()[0] == "file,label,score,error,novelty"


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_probabilities_have_six_significant_digits(output_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    prediction = Prediction(Path("a.png"), "cat", 2 / 3, (("cat", 2 / 3), ("dog", 1e-9 / 3)))
    assert write_predictions([prediction], output_format) == 0
    output = capsys.readouterr().out
    assert "0.666667" in output
    assert "3.33333e-10" in output
    assert "0.6666667" not in output


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_no_error_is_counted_without_errors(output_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_predictions([GOOD, GOOD], output_format) == 0
    assert capsys.readouterr().out.count("Käse") >= 2


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_a_file_name_that_is_not_utf8_does_not_stop_the_output(
    output_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    latin = Prediction(Path(os.fsdecode(b"caf\xe9.png")), "cat", 0.5)
    assert write_predictions([latin, GOOD], output_format) == 0
    assert "Käse" in capsys.readouterr().out
