"""Commands that need no search: predict, evaluate, champions, promote and cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data.load_dataset import load_dataset
from tests.tuning.command_line import Capture, error_lines
from tests.tuning.factories import candidate
from tests.tuning.test_predict import FakeModel
from tuning.__main__ import main
from tuning.registry.build_candidate import count_test_evaluations
from tuning.registry.candidate_store import save_candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the model that a command loads."""
    monkeypatch.setattr("tuning.registry.candidate_store.load_model", lambda _: FakeModel(("blue", "green", "red")))


READING_COMMANDS = (
    ("predict", "models:/photos@champion", "cat.png"),
    ("predict", "runs:/1/model", "cat.png"),
    ("evaluate", "models:/photos@champion", "photos"),
    ("champions", "photos"),
    ("compare", "photos", "pets"),
    ("promote", "1"),
    ("rollback", "photos", "--reason", "r"),
    ("train", "--run", "1"),
    ("train", "--model", "models:/photos/1"),
    ("resume", "1"),
)


@pytest.mark.parametrize("arguments", READING_COMMANDS, ids=" ".join)
def test_a_command_that_reads_creates_no_database_and_names_the_missing_one(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "cat.png").touch()
    assert main(arguments) == 2
    assert f"there is no {tmp_path}/mlflow.db; run the command in the folder of the search" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]


def test_a_packaged_model_in_a_folder_needs_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "cat.png").touch()
    assert main(["predict", "missing", "cat.png"]) == 2
    assert "check the path" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]


@pytest.mark.usefixtures("client", "fake_model")
def test_predict_prints_a_line_per_file_and_exits_with_1_if_one_is_broken(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for name in ("red.png", "broken.png"):
        (folder / name).touch()
    assert main(["predict", "--model", "m", "--files", str(folder)]) == 1
    broken, red = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(prediction["file"]).name for prediction in (broken, red)] == ["broken.png", "red.png"]
    assert "error" in broken
    assert red["label"] == "red"
    assert main(["predict", "--model", "m", "--files", f"{folder}/red.*", "--format", "csv"]) == 0
    columns = "file,label,score,error,novelty,probability_blue,probability_green,probability_red"
    assert capsys.readouterr().out.splitlines()[0] == columns


@pytest.mark.usefixtures("client", "fake_model")
def test_predict_accepts_several_files_folders_and_patterns(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a/red.png", "b/blue.png", "b/green.png", "c/red.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = (str(tmp_path / "a" / "red.png"), f"{tmp_path}/b/*.png", str(tmp_path / "c"))
    assert main(["predict", "--model", "m", *files, "--format", "csv"]) == 0
    output = capsys.readouterr()
    assert [line.split(",")[1] for line in output.out.splitlines()[1:]] == ["red", "blue", "green", "red"]
    assert output.err == ""


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "--model", "models:/no@champion", "--files", "missing"), "files must be an image file, a folder"),
        (("predict", "--model", "models:/no@champion", "--files", __file__), "model must be a packaged model"),
        (("promote", "--run", "0" * 32), "run must be "),
        (("promote", "--name", "pets", "--version", "1"), "name must be a registered model, got 'pets'"),
        (("rollback", "--name", "pets", "--reason", "r"), "name must be a registered model, got 'pets'"),
        (("champions", "--name", "pets"), "name must be a registered model, got 'pets'"),
        (("train", "--run", "0" * 32), "run must be "),
    ],
)
def test_a_missing_file_model_or_run_is_one_message(arguments: Sequence[str], message: str, capsys: Capture) -> None:
    (line,) = error_lines(capsys, *arguments)
    assert line.startswith(f"{arguments[0]}: {message}")


@pytest.mark.usefixtures("client", "fake_model")
def test_evaluate_prints_the_scores_and_writes_all_numbers(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    for file in image_folder.rglob("*.png"):
        file.rename(file.with_name(f"{file.parent.name}{file.name}"))
    json_file, page = tmp_path / "numbers.json", tmp_path / "page.html"
    options = ("--data", str(image_folder), "--split", "all", "--json", str(json_file), "--report", str(page))
    assert main(["evaluate", "--model", "m", *options]) == 0
    output = capsys.readouterr().out
    assert "m on 24 images of images" in output
    assert "calibration error  0.1" in output
    assert all(name in output for name in ("blue", "green", "red"))
    numbers = json.loads(json_file.read_text())
    assert numbers["scores"]["accuracy"] == 1.0
    assert set(numbers["intervals"]) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert "100.0% accuracy on images (24 images)" in page.read_text()


@pytest.mark.usefixtures("client", "fake_model")
@pytest.mark.parametrize(("split", "count"), [("test", 1), ("all", 1), ("val", 0)])
def test_an_evaluation_of_test_images_is_counted(split: str, count: int, image_folder: Path) -> None:
    for file in image_folder.rglob("*.png"):
        file.rename(file.with_name(f"{file.parent.name}{file.name}"))
    load_dataset(str(image_folder))  # a search has split it
    assert main(["evaluate", "--model", "m", "--data", str(image_folder), "--split", split]) == 0
    assert count_test_evaluations(load_dataset(str(image_folder))) == count


@pytest.mark.usefixtures("client", "fake_model")
@pytest.mark.parametrize("names", [("red000.png",), ("red000.png", "red001.png", "blue000.png")])
def test_evaluate_measures_few_images_of_some_classes(
    names: Sequence[str], tmp_path: Path, image_folder: Path, capsys: Capture
) -> None:
    for name in names:
        label = name.removesuffix(".png").rstrip("01")
        (tmp_path / "new" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(image_folder / label / name.removeprefix(label), tmp_path / "new" / label / name)
    (tmp_path / "new" / "red" / "broken.png").write_text("text")
    page = tmp_path / "page.html"
    assert main(["evaluate", "m", str(tmp_path / "new"), "--report", str(page)]) == 0
    output = capsys.readouterr().out
    assert f"m on {len(names)} image" in output
    assert "not measured: red/broken.png" in output
    assert page.exists()


@pytest.mark.usefixtures("client", "fake_model")
def test_evaluate_measures_all_images_and_says_how_many_were_trained_on(image_folder: Path, capsys: Capture) -> None:
    load_dataset(str(image_folder))
    assert main(["evaluate", "m", str(image_folder)]) == 0
    output = capsys.readouterr().out
    assert "m on 24 images" in output
    assert "of these images are in the train or val split; --split test leaves them out" in output


@pytest.mark.usefixtures("client", "fake_model")
def test_evaluate_refuses_unknown_classes_by_name(image_folder: Path, capsys: Capture) -> None:
    (image_folder / "red").rename(image_folder / "rouge")
    (line,) = error_lines(capsys, "evaluate", "m", str(image_folder))
    assert "must have classes of the model (blue, green, red), got rouge in" in line


@pytest.mark.usefixtures("client")
def test_champions_prints_the_history_and_the_version_of_each_alias(client: MlflowClient, capsys: Capture) -> None:
    from tuning.common.promotion_types import ChampionChange
    from tuning.registry.client import ModelRegistry

    registry = ModelRegistry(client, "pets")
    registry.create_if_missing()
    assert main(["champions", "--name", "pets"]) == 0
    assert "models:/pets@champion: none" in capsys.readouterr().out
    registry.register("/package", client.create_run("0").info.run_id, "m-1", {})
    registry.set_alias("champion", 1)
    promoted = {"number": 1, "version": 1, "previous": None, "reason": "better", "kind": "promoted"}
    registry.append_history(ChampionChange.model_validate({**promoted, "at": "2026-01-02T03:04:05+00:00"}))
    assert main(["champions", "--name", "pets"]) == 0
    output = capsys.readouterr().out
    for part in ("2026-01-02T03:04:05", "promoted", "better", "models:/pets@champion: version 1"):
        assert part in output
    assert "outside Freezeline" not in output
    registry.delete_alias("champion")
    assert main(["champions", "--name", "pets"]) == 0
    assert "set outside Freezeline; the last champion in the history: version 1" in capsys.readouterr().out


@pytest.fixture
def run_with_changed_data(client: MlflowClient, image_folder: Path) -> str:
    """Return a run with a candidate whose data has changed since."""
    run_id = str(client.create_run("0").info.run_id)
    save_candidate(client, candidate(run_id=run_id).model_copy(update={"data": str(image_folder)}))
    return run_id


def test_promote_refuses_a_candidate_whose_data_has_changed(
    client: MlflowClient, run_with_changed_data: str, capsys: Capture
) -> None:
    (line,) = error_lines(capsys, "promote", "--run", run_with_changed_data)
    assert "has changed since" in line
    assert client.search_registered_models() == []


def create_cache_entries(*keys: str) -> None:
    """Create cache entries in a new process, so that this one does not use them."""
    code = """
import sys
from data.cache.content_cache import ContentCache
for key in sys.argv[1:]:
    ContentCache().get_or_create(key, lambda folder: (folder / "file").write_text("x"))
"""
    subprocess.run([sys.executable, "-c", code, *keys], cwd=ROOT, check=True)


def test_the_cache_is_listed_and_cleared(capsys: Capture, freezeline_home: Path) -> None:
    create_cache_entries("pixels/abc")
    assert main(["cache"]) == 0
    output = capsys.readouterr().out
    assert "pixels/abc" in output
    assert str(freezeline_home) in output
    assert main(["cache", "--clear", "pixels"]) == 0
    output = capsys.readouterr().out
    assert "removed 1 cache entry" in output
    assert "pixels/abc" not in output


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_clearing_one_kind_of_cache_entries_keeps_the_other(capsys: Capture, kind: str) -> None:
    create_cache_entries("pixels/abc", "features/abc/def")
    assert main(["cache", "--clear", kind]) == 0
    output = capsys.readouterr().out
    assert [name for name in ("pixels", "features") if f"{name}/abc" not in output] == [kind]
