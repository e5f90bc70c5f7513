"""predict and monitor as commands: answers of a registered model are recorded and compared with its test images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageOps

from data.dataset.dataset import Dataset
from data.load_dataset import load_dataset
from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from models.classifier import build_classifier
from models.training.trial_io import save_weights
from models.trial_config import FitConfig, NetworkConfig, TrialConfig
from tests.tuning.command_line import Capture, error_lines
from tests.tuning.packaged_candidates import PackageCandidate
from tuning.__main__ import main
from tuning.recipe.schema import TrainingSettings
from tuning.registry.build_candidate import build_candidate
from tuning.registry.candidate_store import load_model
from tuning.registry.member_predictions import TrainedMember
from tuning.registry.promotion import promote
from tuning.tracking.parent_run import ParentRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_pauses", "smoke_tested")


@pytest.fixture
def images(image_folder: Path) -> Dataset:
    return load_dataset(str(image_folder))


@pytest.fixture
def model(client: MlflowClient, images: Dataset, tmp_path: Path) -> str:
    """Return the name of a registered model with novelty, whose network has random weights."""
    network = NetworkConfig(backbone="small_cnn", weights="none", freeze_fraction=0)
    config = TrialConfig(
        seed=1, preprocessing=Preprocessing(16), batches=BatchConfig(), network=network, fit=FitConfig()
    )
    save_weights(build_classifier(network, len(images.classes), 16, 1), tmp_path / "weights.safetensors")
    parent = ParentRun.open(client, None, "images")
    settings = TrainingSettings(data="photos", name="colors")
    member = TrainedMember(config, tmp_path / "weights.safetensors")
    candidate = build_candidate(parent, images, settings, [member], tmp_path / "package")
    assert parent.writer.flush() == ()
    promote(client, candidate, images, force="for the test")
    return "colors"


def predict_and_record(
    name: str, images: Path, records: Path, monkeypatch: pytest.MonkeyPatch, repeats: int = 12
) -> list[Path]:
    """Predict the images of a folder several times, with recording; return their files."""
    monkeypatch.setenv("FREEZELINE_RECORD", str(records))
    model, files = load_model(f"models:/{name}@champion"), sorted(images.rglob("*.png"))
    for _ in range(repeats):
        model.predict(files)
    model.unwrap_python_model().recorder.close()
    monkeypatch.delenv("FREEZELINE_RECORD")
    return files


def test_the_same_images_are_no_drift_and_other_images_are(
    model: str, images: Dataset, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    same, dark = tmp_path / "same", tmp_path / "dark"
    for number, sample in enumerate(images.split("test")):
        for folder in (same, dark):
            folder.mkdir(exist_ok=True)
            shutil.copy(images.root / sample.path, folder / f"{number}.png")
        with Image.open(dark / f"{number}.png") as image:
            ImageOps.invert(image.convert("RGB")).save(dark / f"{number}.png")
    files = predict_and_record(model, same, tmp_path / "quiet", monkeypatch)
    assert main(["monitor", model, str(tmp_path / "quiet")]) == 0
    assert "no drift" in capsys.readouterr().out
    predict_and_record(model, dark, tmp_path / "drifted", monkeypatch)
    page = tmp_path / "monitor.html"
    assert main(["monitor", f"models:/{model}/1", str(tmp_path / "drifted"), "--report", str(page)]) == 3
    assert "drift of " in capsys.readouterr().out

    experiment = client.get_experiment_by_name("colors-monitoring")
    assert experiment is not None
    newest, oldest = client.search_runs([experiment.experiment_id])
    assert {newest.info.status, oldest.info.status} == {"FINISHED"}
    assert newest.data.metrics["images"] == 12 * len(files)
    assert newest.data.metrics["drift/novelty"] > oldest.data.metrics["drift/novelty"]
    assert [file.path for file in client.list_artifacts(newest.info.run_id)] == ["monitor.html"]
    text = page.read_text()
    assert text.count("<svg") == 4
    assert "of colors version 1 from" in text

    labels = tmp_path / "labels.csv"
    wrong = ["path,label", *(f"{file},{images.classes[0]}" for file in files)]
    labels.write_text("\n".join(wrong))
    main(["monitor", model, str(tmp_path / "quiet"), "--labels", str(labels)])
    assert f"of {len(files)} labeled images; at least " in capsys.readouterr().out


def test_predict_rejects_with_an_empty_label(model: str, images: Dataset, capsys: Capture) -> None:
    file = str(images.root / images.split("test")[0].path)
    assert main(["predict", f"models:/{model}@champion", file]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept["label"]
    assert main(["predict", f"models:/{model}@champion", file, "--reject", str(kept["novelty"] / 2)]) == 0
    assert json.loads(capsys.readouterr().out) == {**kept, "label": ""}


def test_mistakes_are_one_sentence(
    model: str, package: PackageCandidate, images: Dataset, client: MlflowClient, tmp_path: Path, capsys: Capture
) -> None:
    (line,) = error_lines(capsys, "monitor", model, str(tmp_path / "nowhere"))
    assert "records must be the folder that FREEZELINE_RECORD named" in line
    (line,) = error_lines(capsys, "monitor", "unknown", str(tmp_path))
    assert "unknown" in line
    old = package(10)
    promote(client, old, images)
    (line,) = error_lines(capsys, "monitor", old.name, str(tmp_path))
    assert "must be packaged with the reference that monitor compares with" in line
