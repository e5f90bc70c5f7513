"""Recording of answers: what is written, and that answers do not wait for it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from models.packaging import recording
from models.packaging.recording import VARIABLE, Recorder, image_id, recorder_from_environment
from tests.models.conftest import CLASSES, Packaged


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]


def record(recorder: Recorder, sources: list[object], label: str = "a") -> None:
    recorder.record({"time": 1.5}, sources, [label, "b"], np.array([[0.75, 0.25]] * len(sources)), None, None)


def test_a_package_records_its_answers_without_the_images(
    packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv(VARIABLE, str(tmp_path / "records"))
    model = mlflow.pyfunc.load_model(str(packaged.model))
    content = packaged.image_file.read_bytes()
    frame = model.predict([content, b"broken", packaged.image_file])
    model.unwrap_python_model().recorder.close()
    rows = rows_of(tmp_path / "records")
    assert [row["image"] for row in rows] == [hashlib.sha256(content).hexdigest()[:16]] * 2  # none for the broken one
    assert [row["label"] for row in rows] == [frame["label"][0], frame["label"][2]]
    assert rows[0]["score"] == pytest.approx(frame["score"][0], abs=1e-6)
    assert rows[0]["model"] == json.loads((packaged.folder / "facts.json").read_text())["package_id"]
    assert all(set(row) == {"time", "model", "latency_ms", "image", "label", "score"} for row in rows)


def test_nothing_is_recorded_without_the_variable(packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.delenv(VARIABLE, raising=False)
    assert recorder_from_environment() is None
    assert mlflow.pyfunc.load_model(str(packaged.model)).unwrap_python_model().recorder is None


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "records"))
    with pytest.raises(NotADirectoryError):
        recorder_from_environment()


def test_answers_do_not_wait_for_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_QUEUED", 2)
    release, recorder = threading.Event(), Recorder(tmp_path)
    monkeypatch.setattr(recording, "image_id", lambda source: str(release.wait(10)))
    for _ in range(10):
        record(recorder, [b"image"])  # would block if the queue were waited for
    release.set()
    recorder.close()
    assert 1 <= len(rows_of(tmp_path)) <= 3


def test_an_error_of_the_disk_ends_no_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "records"
    recorder = Recorder(folder)
    folder.rmdir()
    record(recorder, [b"image"])
    recorder.close()
    assert "No such file or directory" in capfd.readouterr().err


def test_a_deleted_image_file_ends_no_recording(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(tmp_path / "records")
    record(recorder, [tmp_path / "deleted.png"])
    record(recorder, [b"next"])
    recorder.close()
    assert [row["image"] for row in rows_of(tmp_path / "records")] == [image_id(b"next")]
    assert "deleted.png" in capfd.readouterr().err


def test_an_array_may_change_after_its_answer(tmp_path: Path) -> None:
    recorder, image = Recorder(tmp_path), np.zeros((4, 4, 3), np.uint8)
    before = image_id(image)
    record(recorder, [image])
    image[:] = 1
    recorder.close()
    assert [row["image"] for row in rows_of(tmp_path)] == [before]


def test_a_forked_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    record(recorder, [b"parent"])
    if (child := os.fork()) == 0:
        record(recorder, [b"child"])
        recorder.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    recorder.close()
    assert sorted(file.stem.rpartition("-")[2] for file in tmp_path.iterdir()) == sorted(map(str, (child, os.getpid())))
    assert {row["image"] for row in rows_of(tmp_path)} == {image_id(b"parent"), image_id(b"child")}


def test_an_image_has_one_id_as_a_file_and_as_bytes(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    Image.new("RGB", (2, 2), "red").save(file)
    assert image_id(file) == image_id(file.read_bytes())
    assert image_id(Image.open(file)) == image_id(np.asarray(Image.open(file)))


def test_labels_of_any_language_are_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    record(recorder, [b"x"], label="Käse \ud800")
    recorder.close()
    assert len(rows_of(tmp_path)) == 1


def test_recorded_predictions_have_the_classes_of_the_frame(packaged: Packaged) -> None:
    import mlflow

    frame = mlflow.pyfunc.load_model(str(packaged.model)).predict(pd.DataFrame({"image": [""]}))
    assert list(frame.columns) == ["label", "score", "error", *CLASSES]
