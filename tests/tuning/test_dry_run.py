"""``tune --dry-run``: everything is validated, the plan and the resolved recipe are printed, nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuning.command_line import Capture, error_lines
from tuning.__main__ import main
from tuning.recipe.loader import load_recipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_the_printed_recipe_gives_the_same_search(image_folder: Path, folder: Path, capsys: Capture) -> None:
    options = ["--minutes", "2", "--no-sweep", "--lr", "1e-4..1e-2", "--image-size", "32,64", "--max-mb", "20"]
    assert main(["tune", str(image_folder), *options, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "24 images in 3 classes" in printed
    assert "plan: trials of up to 8 epochs" in printed
    (folder / "resolved.yaml").write_text(printed.partition("resolved recipe:\n")[2])
    again = load_recipe({"recipe": "resolved.yaml"})
    assert (again.minutes, again.sweep, again.max_mb) == (2, False, 20)
    assert (str(again.lr), str(again.image_size)) == ("0.0001..0.01", "32,64")
    assert again.backbone is not None, "auto is resolved"
    assert not (folder / "mlflow.db").exists(), "nothing is tracked"


def test_a_server_that_is_away_is_reported(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (line,) = error_lines(capsys, "tune", str(image_folder), "--dry-run")
    assert line.startswith("tune: the MLflow server must be available, but http://127.0.0.1:9 is not")


def test_mistakes_are_reported_as_by_a_search(capsys: Capture) -> None:
    assert "got nowhere" in " ".join(error_lines(capsys, "tune", "nowhere", "--dry-run"))
