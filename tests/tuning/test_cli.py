"""The commands as they are typed, in this process; what needs Ray is proved elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from mlflow.projects.utils import _create_run

from data.errors import DataError, SearchError, TrackingError, UserError
from tests.conftest import MakeFolder
from tests.tuning.factories import candidate, trial_config
from tests.tuning.test_predict import FakeModel
from tuning import cli
from tuning.__main__ import main
from tuning.recipe.auto import auto_backbones, auto_image_sizes
from tuning.recipe.domains import Categorical
from tuning.recipe.options import option_fields
from tuning.recipe.schema import Recipe, TrainingSettings
from tuning.registry.candidate_store import save_candidate
from tuning.workflows.preflight import check_data_path_of_url_run, prepare_context
from tuning.workflows.train import as_recipe, load_finished_trial

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]


def mistakes(capsys: Capture, *arguments: str) -> list[str]:
    """Run a command that must end with exit status 2, and return the sentences that it said."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err.splitlines()


# --- help ---


def test_without_a_command_the_overview_is_shown_and_it_is_a_mistake(capsys: Capture) -> None:
    assert main([]) == 2
    assert "usage: python -m tuning COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_the_overview_names_every_command(word: str, capsys: Capture) -> None:
    assert main([word]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == list(cli.SUMMARIES)
    assert {"tune", "train", "evaluate", "promote", "predict"} <= set(listed)


@pytest.mark.parametrize("name", cli.SUMMARIES)
def test_a_commands_page_has_its_options_and_an_example_that_is_read(name: str, capsys: Capture) -> None:
    assert main([name, "--data", "nowhere", "--help"]) == 0
    page = capsys.readouterr().out
    command = cli.load(name)
    assert f"usage: python -m tuning {name} " in page
    assert cli.SUMMARIES[name] in page
    for option, field in option_fields(command.OPTIONS).items():
        assert f"--{option} " in page
        assert str(field.description) in page
    assert command.EXAMPLE.startswith(f"python -m tuning {name} ")
    assert command.EXAMPLE in page


def test_every_file_in_cli_is_a_command() -> None:
    files = {path.stem for path in (ROOT / "tuning" / "cli").glob("*.py")} - {"__init__", "parser"}
    assert files == set(cli.SUMMARIES)
    assert len(files) >= 5


HEAVY = """
import sys, time
from tuning.__main__ import main
status = main(sys.argv[1:])
heavy = {"torch", "ray", "mlflow", "optuna", "timm", "pandas", "sklearn", "albumentations"} & set(sys.modules)
print(sorted(heavy), time.process_time(), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize("arguments", [("--help",), *((name, "--help") for name in cli.SUMMARIES)])
def test_help_imports_nothing_heavy_and_is_quick(arguments: Sequence[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    imported, _, processor_s = done.stderr.strip().rpartition(" ")
    assert imported == "[]"
    assert float(processor_s) < 1


def test_a_mistyped_option_is_told_before_anything_heavy_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, "tune", "--trails", "5"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    sentence, imported = done.stderr.splitlines()
    assert sentence == "tune: there is no option --trails; did you mean trials?"
    assert imported.startswith("[] ")


def test_an_audit_waits_for_no_library_that_it_does_not_need(image_folder: Path) -> None:
    arguments = ("audit", "--data", str(image_folder))
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.rpartition(" ")[0]) == (0, "[]")


def test_the_module_is_run_by_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tuning", "tnue"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == "there is no command 'tnue'; did you mean tune?"


# --- mistakes in what was typed ---

EITHER = (
    "promote: either --run RUN_ID or --name NAME with --version N must be given, got {}; give the one or the other."
)


def test_an_unknown_command_is_a_mistake(capsys: Capture) -> None:
    assert mistakes(capsys, "zebra") == ["there is no command 'zebra'; see python -m tuning --help."]


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (("tune", "--trials", "0"), ["tune: trials must be at least 1, got '0'."]),
        (("tune", "--trials", "abc"), ["tune: trials must be a whole number, got 'abc'."]),
        (("tune", "--image_size", "0"), ["tune: image_size must be a whole number from 16 to 1024, got '0'."]),
        (("tune", "--drop-out", "0"), ["tune: there is no option --drop_out; did you mean dropout?"]),
        (("tune", "--trails", "5", "--trials", "0"),
         ["tune: there is no option --trails; did you mean trials?", "tune: trials must be at least 1, got '0'."]),
        (("train", "--max_epochs", "0"), ["train: max_epochs must be at least 1, got '0'."]),
        (("evaluate", "--split", "tset", "--model", "m"),
         ["evaluate: split must be 'test', 'val', 'train' or 'all', got 'tset'; did you mean test?"]),
        (("promote", "--run", ""), [EITHER.format("none of them")]),
        (("promote", "--run", "a", "--name", "pets", "--version", "1"), [EITHER.format("--run --name --version")]),
        (("promote", "--name", "pets"), [EITHER.format("--name")]),
        (("rollback", "--name", "pets"), ["rollback: --reason must be given: why, for the history."]),
        (("predict", "--format", "xml", "--model", "m", "--files", "f"),
         ["predict: format must be 'json' or 'csv', got 'xml'."]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_a_sentence(arguments: Sequence[str], sentences: list[str], capsys: Capture) -> None:
    assert mistakes(capsys, *arguments) == sentences


def test_all_that_predict_lacks_is_said_at_once(capsys: Capture) -> None:
    lines = mistakes(capsys, "predict")
    assert [line.split(" must be given")[0] for line in lines] == ["predict: --model", "predict: --files"]


class Raising:
    """A command that ends with an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, _: Sequence[str]) -> NoReturn:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("lr is wrong.", "so is data"), 2, "tune: lr is wrong.\ntune: so is data.\n"),
        (SearchError("no trial finished"), 1, "tune: no trial finished\n"),
        (KeyboardInterrupt(), 130, "tune: stopped.\n"),
    ],
)
def test_each_kind_of_end_has_its_exit_status(
    error: BaseException, status: int, said: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.cli.load", lambda _: Raising(error))
    assert main(["tune"]) == status
    assert capsys.readouterr().err == said


# --- mistakes that are found on the ground, before the first trial ---


def assert_untouched(client: MlflowClient) -> None:
    assert [found.name for found in client.search_experiments()] == ["Default"]
    assert client.search_runs(["0"]) == []


@pytest.mark.parametrize("command", ["tune", "train"])
@pytest.mark.parametrize(
    ("counts", "data", "sentence"),
    [
        ({}, "missing", "data must be an existing folder, got "),
        ({}, "", "data must be a folder with one folder of images per class, got an empty folder"),
        ({"cat": 3}, "", "data must have at least 2 classes, got 1 (cat)"),
        ({"cat": 4, "dog": 2}, "", "every class must have at least 3 different readable images"),
        ({"cat": 3}, "cat/000.png", "got another file: "),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_a_sentence(
    command: str,
    counts: dict[str, int],
    data: str,
    sentence: str,
    make_folder: MakeFolder,
    client: MlflowClient,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    folder = make_folder(counts=counts) if counts else tmp_path / "images"
    folder.mkdir(exist_ok=True)
    (line,) = mistakes(capsys, command, "--data", str(folder / data), "--weights", "none")
    assert line.startswith(f"{command}: ")
    assert sentence in line
    assert_untouched(client)


def test_pictures_that_cannot_be_read_are_counted_and_named(
    make_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    folder, report = make_folder(counts={"cat": 4, "dog": 4}), tmp_path / "audit.json"
    for name in ("cat/bad.png", "dog/worse.png"):
        (folder / name).write_text("no picture")
    assert main(["audit", "--data", str(folder), "--json", str(report)]) == 0
    said = capsys.readouterr().out
    assert "8 images" in said
    for name in ("cat/bad.png", "dog/worse.png"):
        assert name in said
        assert name in report.read_text()


def test_an_unknown_backbone_is_told_the_nearest_names(
    image_folder: Path, client: MlflowClient, capsys: Capture
) -> None:
    (line,) = mistakes(capsys, "tune", "--data", str(image_folder), "--backbone", "resnet3", "--weights", "none")
    assert "backbone must be " in line
    assert "got 'resnet3'; did you mean resnet34" in line
    assert_untouched(client)


def test_weights_of_another_architecture_are_a_sentence(
    image_folder: Path, client: MlflowClient, tmp_path: Path, capsys: Capture
) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(2, 3)}, str(file))
    (line,) = mistakes(capsys, "tune", "--data", str(image_folder), "--weights", str(file))
    assert "doesn't fit the backbone" in line
    assert_untouched(client)


def test_a_hub_that_cannot_be_reached_is_told_with_the_offline_ways(
    image_folder: Path, client: MlflowClient, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (line,) = mistakes(capsys, "tune", "--data", str(image_folder), "--backbone", "resnet34")
    assert "hub, which can't be reached" in line
    assert "weights=none" in line
    assert_untouched(client)


def test_all_that_is_wrong_on_the_ground_is_said_at_once(
    closed_port: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    lines = mistakes(capsys, "tune", "--data", "missing", "--weights", "missing.pth")
    assert [line.split()[1] for line in lines] == ["weights", "data", "the"]


OFFLINE = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


def test_networks_and_sizes_that_are_left_open_are_those_without_a_hub_at_the_pictures_own_sizes(
    image_folder: Path, client: MlflowClient
) -> None:
    asked = Recipe(data=str(image_folder), weights="none")
    ground = prepare_context(asked)
    settled = ground.resolve_auto(asked)
    assert settled.backbone == Categorical(options=OFFLINE)
    assert settled.image_size == Categorical(options=(48, 64, 96))
    assert settled.truncate == Categorical(options=(0, 3))
    assert {pair: one.image_size for pair, one in ground.preprocessings.items()} == {
        (name, size): size for name in OFFLINE for size in (48, 64, 96)
    }
    assert_untouched(client)


@pytest.mark.parametrize(
    ("weights", "answers", "more"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("hub", True, True),
        ("none", True, False),
        ("package", True, False),
    ],
)
def test_two_more_networks_are_tried_where_a_hub_answers_that_may_be_used(
    weights: str, answers: bool, more: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.backbones.weights.hub_reachable", lambda: answers)
    assert auto_backbones(weights) == OFFLINE + ("mobilenetv3_large_100", "convnext_femto") * more


def test_each_variant_gets_the_networks_and_sizes_that_it_leaves_open(image_folder: Path, client: MlflowClient) -> None:
    variants = [
        {"name": "one", "settings": {"backbone": "small_cnn", "image_size": "32"}},
        {"name": "any", "settings": {"freeze_fraction": "1"}},
    ]
    asked = Recipe.model_validate({"data": str(image_folder), "weights": "none", "variants": variants})
    ground = prepare_context(asked)
    one, some = ground.resolve_auto(asked).variants
    assert one.settings == {"backbone": "small_cnn", "image_size": "32", "truncate": "0"}  # it has few blocks
    found = {"backbone": ",".join(OFFLINE), "image_size": "48,64,96", "truncate": "0,3"}
    assert some.settings == {"freeze_fraction": "1", **found}
    assert ("small_cnn", 32) in ground.preprocessings
    assert ("small_cnn", 48) not in ground.preprocessings
    assert_untouched(client)


def test_more_blocks_cannot_be_dropped_than_a_network_has(
    image_folder: Path, client: MlflowClient, capsys: Capture
) -> None:
    options = ("--data", str(image_folder), "--backbone", "small_cnn,tf_efficientnet_lite0", "--truncate", "0,40")
    first, second = mistakes(capsys, "tune", *options, "--weights", "none")
    assert first == ("tune: truncate must be 0..3 for small_cnn, got 40; python -m tuning blocks lists its blocks.")
    assert "truncate must be 0..17 for tf_efficientnet_lite0, got 40" in second
    assert_untouched(client)


@pytest.mark.parametrize(
    ("median", "sizes"),
    [(1, (48, 64, 96)), (96, (48, 64, 96)), (97, (64, 96, 128)), (160, (96, 128, 160)), (161, (128, 160, 224)),
     (4000, (128, 160, 224))],
)  # fmt: skip
def test_pictures_are_resized_by_their_own_size(median: int, sizes: tuple[int, ...]) -> None:
    assert auto_image_sizes(median) == sizes


# --- one command after another ---


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a model in place of whatever a command loads."""
    monkeypatch.setattr("tuning.registry.candidate_store.load_model", lambda _: FakeModel(("blue", "green", "red")))


@pytest.mark.usefixtures("client", "fake_model")
def test_predict_prints_a_line_a_file_and_ends_with_1_where_one_is_broken(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    for name in ("red.png", "broken.png"):
        (folder / name).touch()
    assert main(["predict", "--model", "m", "--files", str(folder)]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == ["broken.png", "red.png"]
    assert "error" in answers[0]
    assert answers[1]["label"] == "red"
    assert main(["predict", "--model", "m", "--files", f"{folder}/red.*", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "file,label,score,error"


@pytest.mark.usefixtures("client", "fake_model")
def test_predict_takes_several_files_folders_and_patterns(tmp_path: Path, capsys: Capture) -> None:
    for name in ("a/red.png", "b/blue.png", "b/green.png", "c/red.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = (str(tmp_path / "a" / "red.png"), f"{tmp_path}/b/*.png", str(tmp_path / "c"))
    assert main(["predict", "--model", "m", *given, "--format", "csv"]) == 0
    said = capsys.readouterr()
    assert [line.split(",")[1] for line in said.out.splitlines()[1:]] == ["red", "blue", "green", "red"]
    assert said.err == ""


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("predict", "--model", "models:/no@champion", "--files", "missing"), "files must be an image file, a folder"),
        (("predict", "--model", "models:/no@champion", "--files", __file__), "model must be a packaged model such as"),
        (("promote", "--run", "0" * 32), "run must be the id of a search or a training"),
        (("promote", "--name", "pets", "--version", "1"), "name must be a registered model, got 'pets'"),
        (("rollback", "--name", "pets", "--reason", "r"), "name must be a registered model, got 'pets'"),
        (("champions", "--name", "pets"), "name must be a registered model, got 'pets'"),
        (("train", "--run", "0" * 32), "run must be the id of a trial's run"),
    ],
)
def test_what_does_not_exist_is_a_sentence(arguments: Sequence[str], sentence: str, capsys: Capture) -> None:
    (line,) = mistakes(capsys, *arguments)
    assert line.startswith(f"{arguments[0]}: {sentence}")


@pytest.mark.usefixtures("client", "fake_model")
def test_evaluate_prints_the_scores_and_writes_all_numbers(image_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    for file in image_folder.rglob("*.png"):
        file.rename(file.with_name(f"{file.parent.name}{file.name}"))
    output, page = tmp_path / "numbers.json", tmp_path / "page.html"
    arguments = ("--model", "m", "--data", str(image_folder), "--split", "all", "--json", str(output))
    arguments += ("--report", str(page))
    assert main(["evaluate", *arguments]) == 0
    said = capsys.readouterr().out
    for part in ("m on 24 images of images", "Confusion matrix", "calibration error  0.1"):
        assert part in said
    numbers = json.loads(output.read_text())
    assert numbers["scores"]["accuracy"] == 1.0
    assert set(numbers["intervals"]) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert "100.0% accuracy on images (all, 24 images)" in page.read_text()


@pytest.mark.usefixtures("client")
def test_champions_shows_the_history_and_who_holds_each_alias(client: MlflowClient, capsys: Capture) -> None:
    from tuning.common.promotion_types import ChampionChange
    from tuning.registry.client import ModelRegistry

    versions = ModelRegistry(client, "pets")
    versions.create_if_missing()
    assert main(["champions", "--name", "pets"]) == 0
    assert "models:/pets@champion: none" in capsys.readouterr().out
    versions.create_version("/package", client.create_run("0").info.run_id, "m-1", {"mark": ""}, "mark")
    versions.set_alias("champion", 1)
    said = {"kind": "promoted", "at": "2026-01-02T03:04:05+00:00"}
    versions.append_history(
        ChampionChange.model_validate({"number": 1, "version": 1, "previous": None, "reason": "better", **said})
    )
    assert main(["champions", "--name", "pets"]) == 0
    first = capsys.readouterr().out
    for part in ("2026-01-02T03:04:05", "promoted", "better", "models:/pets@champion: version 1"):
        assert part in first
    assert "outside Freezeline" not in first
    versions.delete_alias("champion")
    assert main(["champions", "--name", "pets"]) == 0
    assert "set outside Freezeline; the last champion in the history: version 1" in capsys.readouterr().out


@pytest.fixture
def changed(client: MlflowClient, image_folder: Path) -> str:
    """Return a run with a candidate whose data has changed since."""
    run_id = str(client.create_run("0").info.run_id)
    save_candidate(client, candidate(run_id=run_id).model_copy(update={"data": str(image_folder)}))
    return run_id


def test_promote_refuses_where_the_data_has_changed_since(client: MlflowClient, changed: str, capsys: Capture) -> None:
    assert "has changed since" in mistakes(capsys, "promote", "--run", changed)[-1]
    assert client.search_registered_models() == []


def test_promote_says_its_sentence_alone(changed: str, capsys: Capture) -> None:
    assert len(mistakes(capsys, "promote", "--run", changed)) == 1


def test_the_store_is_shown_and_cleared(capsys: Capture, freezeline_home: Path) -> None:
    make = "Store().get_or_make('pixels/abc', lambda folder: (folder / 'file').write_text('x'))"
    subprocess.run([sys.executable, "-c", f"from data.cache.content_cache import Store; {make}"], cwd=ROOT, check=True)
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert "pixels/abc" in shown
    assert str(freezeline_home) in shown
    assert main(["cache", "--clear", "pixels"]) == 0
    cleared = capsys.readouterr().out
    assert "removed 1 cache entry" in cleared
    assert "pixels/abc" not in cleared


@pytest.mark.parametrize("kind", ["pixels", "features"])
def test_one_kind_of_what_is_stored_is_cleared_and_the_other_stays(capsys: Capture, kind: str) -> None:
    make = "[Store().get_or_make(key, lambda folder: None) for key in ('pixels/abc', 'features/abc/def')]"
    subprocess.run([sys.executable, "-c", f"from data.cache.content_cache import Store; {make}"], cwd=ROOT, check=True)
    assert main(["cache", "--clear", kind]) == 0
    cleared = capsys.readouterr().out
    assert [name for name in ("pixels", "features") if f"{name}/abc" not in cleared] == [kind]


# --- a finished trial, to be trained again ---


def trial_run(client: MlflowClient, parent_tags: dict[str, str]) -> str:
    parent = client.create_run("0", tags=parent_tags)
    tags = {"trial_config": trial_config(lr=0.25).to_json(), "mlflow.parentRunId": parent.info.run_id}
    return str(client.create_run("0", tags=tags).info.run_id)


def test_a_finished_trial_is_found_with_its_searchs_recipe_for_its_own_network(client: MlflowClient) -> None:
    variants = [{"name": "other", "settings": {"backbone": "resnet34"}}]
    texts = {"data": "photos", "name": "pets", "cpus_per_trial": 2, "variants": variants}
    again = load_finished_trial(client, trial_run(client, {"recipe": Recipe.model_validate(texts).to_json()}))
    own = {"backbone": "tf_efficientnet_lite0", "image_size": "32", "truncate": "0", "weights": "none"}
    assert again.training == Recipe.model_validate({**texts, "variants": (), **own})
    assert again.config == trial_config(lr=0.25)


def test_a_search_is_no_trial(client: MlflowClient) -> None:
    parent = client.create_run("0", tags={"recipe": Recipe().to_json()}).info.run_id
    with pytest.raises(TrackingError, match=f"must be a trial's run, but {parent} has no trial configuration"):
        load_finished_trial(client, parent)


def test_the_run_of_train_can_be_trained_again(client: MlflowClient) -> None:
    kept = {"trial_config": trial_config(lr=0.25).to_json(), "recipe": as_recipe(TrainingSettings(data="/x")).to_json()}
    run = client.create_run("0", tags=kept).info.run_id
    assert load_finished_trial(client, run).training.data == "/x"
    assert load_finished_trial(client, run).config == trial_config(lr=0.25)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a project, as a user makes one: it has an origin."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "-q", tmp_path / "origin"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], cwd=tmp_path / "origin", check=True)
    subprocess.run([*git, "clone", "-q", tmp_path / "origin", tmp_path / "clone"], check=True)
    return tmp_path / "clone"


def opened_by_mlflow(client: MlflowClient, uri: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the run that ``mlflow run URI`` opens once the project is in ``clone``."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    return str(_create_run(uri, "0", str(clone), None, "tune.sh", {}).info.run_id)


def test_a_relative_path_in_a_run_from_a_url_is_refused(
    client: MlflowClient, image_folder: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened_by_mlflow(client, "https://example.org/freezeline.git", clone, monkeypatch)
    with pytest.raises(DataError, match="data must be an absolute path in a run from a URL, got 'photos'; use"):
        check_data_path_of_url_run(client, run, "photos")
    for data in ("demo", str(image_folder), "s3://bucket/photos"):
        check_data_path_of_url_run(client, run, data)


def test_a_relative_path_in_a_run_from_a_clone_of_the_users_own_is_right(
    client: MlflowClient, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened_by_mlflow(client, str(clone), clone, monkeypatch)
    assert "mlflow.source.git.repoURL" in client.get_run(run).data.tags
    check_data_path_of_url_run(client, run, "photos")
    (clone / "part").mkdir()
    check_data_path_of_url_run(client, opened_by_mlflow(client, f"{clone}#part", clone, monkeypatch), "photos")
    check_data_path_of_url_run(client, client.create_run("0").info.run_id, "photos")


def test_a_trial_is_trained_again_with_its_own_settings_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run", "abc", "--lr", "0.1", "--data", "demo", "--seed", "3"]) == 2
    assert "nothing else can be given; leave out --lr, --seed." in capsys.readouterr().err
