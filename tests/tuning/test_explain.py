"""predict --explain: an overlay for each image, in a folder."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from data.errors import BackboneError
from models.packaging.mlflow_model import LoadedCheckpoint
from tests.models.test_explanation import WHOLE, member
from tests.tuning.command_line import Capture, error_lines
from tests.tuning.test_predict import FakeModel
from tuning.__main__ import main
from tuning.workflows.explain import overlay_paths

COLORS = ("blue", "green", "red")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with three images, one of them broken; any model has a small network with random weights."""
    for name in ("a/red.png", "b/red.png", "b/red.jpg"):
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "red").save(tmp_path / "new" / name)
    (tmp_path / "new" / "broken.png").touch()
    monkeypatch.setattr("tuning.registry.candidate_store.load_model", lambda _: FakeModel(COLORS))
    checkpoint = LoadedCheckpoint((member(WHOLE, 1.0),), COLORS)
    monkeypatch.setattr("models.packaging.mlflow_model.load_checkpoint", lambda _: checkpoint)
    return tmp_path / "new"


@pytest.mark.usefixtures("client")
def test_predict_writes_an_overlay_for_each_readable_image(images: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "why" / "new"
    assert main(["predict", "m", str(images), "--explain", str(folder)]) == 1
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    overlays = {Path(line["file"]).relative_to(images).as_posix(): line.get("overlay") for line in lines}
    assert overlays == {
        "a/red.png": str(folder / "a/red.explained.jpg"),
        "b/red.jpg": str(folder / "b/red.explained.jpg"),
        "b/red.png": str(folder / "b/red-2.explained.jpg"),
        "broken.png": None,
    }
    assert output.err == f"3 overlays written to {folder}\n"
    assert sorted(str(file) for file in folder.rglob("*.jpg")) == sorted(filter(None, overlays.values()))
    with Image.open(folder / "a/red.explained.jpg") as overlay:
        assert overlay.size == (40, 30)
        assert overlay.getpixel((20, 15)) != (255, 0, 0)


@pytest.mark.usefixtures("client")
def test_csv_has_the_overlay_in_a_column(images: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["predict", "m", str(images / "a"), "--explain", str(tmp_path / "why"), "--format", "csv"]) == 0
    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert (header[-1], row[-1]) == ("overlay", str(tmp_path / "why" / "red.explained.jpg"))
    assert main(["predict", "m", str(images / "a"), "--format", "csv"]) == 0
    header, _ = csv.reader(io.StringIO(capsys.readouterr().out))
    assert "overlay" not in header


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("name", ["file", "file/folder"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_model_is_loaded(
    name: str, images: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tuning.registry.candidate_store.load_model", lambda _: pytest.fail("loaded"))
    (line,) = error_lines(capsys, "predict", "m", str(images), "--explain", str(tmp_path / name))
    reason = "is a file" if name == "file" else "cannot be created (Not a directory)"
    assert f"explain must be a folder to write to, got '{tmp_path / name}', which {reason}; use another" in line


@pytest.mark.usefixtures("client")
def test_a_network_without_maps_is_refused(
    images: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BackboneError("class activation maps need an activation whose positions are known")

    monkeypatch.setattr("models.packaging.explanation.ClassActivation", refuse)
    (line,) = error_lines(capsys, "predict", "m", str(images / "a"), "--explain", str(tmp_path / "why"))
    assert "class activation maps need an activation" in line


def test_no_two_files_have_the_same_overlay() -> None:
    names = ["/x/cat.png", "/x/cat.jpg", "/x/Cat.gif", "/x/cat-2.png", "/x/y/cat.png", "/x/cat.png", "/x/a.b.c"]
    paths = overlay_paths([Path(name) for name in names], Path("out"))
    assert [path.as_posix() for path in paths] == [
        "out/cat.explained.jpg",
        "out/cat-2.explained.jpg",
        "out/Cat-3.explained.jpg",
        "out/cat-2-2.explained.jpg",
        "out/y/cat.explained.jpg",
        "out/cat-4.explained.jpg",
        "out/a.b.explained.jpg",
    ]
