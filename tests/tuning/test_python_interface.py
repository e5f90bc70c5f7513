"""The Python interface: conversion of values, errors, and its effects on the calling process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import freezeline as fl
from data.load_dataset import load_dataset
from models.evaluation.metrics import compute_metrics
from models.trial_config import NetworkConfig
from tests.models.conftest import Packaged, make_package
from tests.tuning.factories import candidate, ensemble, recipe, trial_config, trial_store
from tests.tuning.study_helpers import run_trial
from tests.tuning.test_predict import FakeModel
from tuning.common.promotion_types import Promotion
from tuning.common.search_paths import SearchPaths
from tuning.recipe.domains import Categorical, FloatRange
from tuning.recipe.loader import load_recipe
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import PackagedWinner, record_test_evaluation
from tuning.reporting.content import EvaluationContent
from tuning.search.time_budget import Elapsed
from tuning.tracking.parent_run import RunTarget
from tuning.workflows.finalize import _package_winner
from tuning.workflows.results import Metric, Predictions, PromotionResult, Report, TrainingResult

if TYPE_CHECKING:
    from mlflow import MlflowClient

IMPORTS = """
import sys, time
import freezeline
heavy = {"torch", "ray", "mlflow", "optuna", "timm", "pandas", "sklearn", "albumentations", "numpy"}
heavy &= set(sys.modules)
print(sorted(heavy), len(freezeline.__version__) > 2)
"""


def recipe_of(**options: object) -> Recipe:
    return load_recipe(*fl._texts(Recipe, options))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lr", (1e-4, 1e-2), FloatRange(low=1e-4, high=1e-2, log=True)),
        ("lr", {"low": 1e-4, "high": 1e-2}, FloatRange(low=1e-4, high=1e-2, log=True)),
        ("lr", 1e-3, Categorical(options=(1e-3,))),
        ("lr", "1e-4..1e-2", FloatRange(low=1e-4, high=1e-2, log=True)),
        ("optimizer", ["adam", "sgd"], Categorical(options=("adam", "sgd"))),
        ("image_size", [64, 96], Categorical(options=(64, 96))),
        ("sweep", False, False),
        ("minutes", 20, 20.0),
        ("minutes", None, None),
        ("data", Path("my photos"), "my photos"),
        ("start_from", "pets@champion", "pets@champion"),
    ],
)
def test_python_values_are_the_same_as_texts_of_the_command_line(name: str, value: object, expected: object) -> None:
    assert getattr(recipe_of(**{name: value}), name) == expected


def test_all_mistakes_are_one_exception_before_anything_starts() -> None:
    with pytest.raises(fl.UserError) as raised:
        fl.tune("nowhere", trails=3, lr=(1, 2, 3), optimizer=["adm"], dropout={"from": 0})
    problems = raised.value.problems
    assert problems[0] == "there is no option 'trails'; did you mean trials?"
    assert problems[1].startswith("lr must be a range (low, high), got (1, 2, 3)")
    assert problems[2].startswith("dropout must be a range with low and high")
    assert problems[3].startswith("optimizer must be one or more of adamw, adam, sgd, lbfgs, got 'adm'")


def test_mistakes_in_options_come_first_and_then_those_of_data_and_networks_together() -> None:
    with pytest.raises(fl.UserError, match=r"^lr must be") as of_options:
        fl.tune("nowhere", lr="fast", backbone="resnet3", weights="none")
    assert len(of_options.value.problems) == 1
    with pytest.raises(fl.UserError, match=r"^data must be") as of_inputs:
        fl.tune("nowhere", backbone="resnet3", weights="none")
    assert [problem.split()[0] for problem in of_inputs.value.problems] == ["data", "backbone"]


@pytest.mark.parametrize(
    ("call", "name", "similar"),
    [
        (fl.tune, "trails", "trials"),
        (fl.resume, "minuets", "minutes"),
        (fl.train, "optimiser", "optimizer"),
        (fl.evaluate, "spilt", "split"),
        (fl.predict, "file", "files"),
        (fl.load, "modle", "model"),
        (fl.promote, "forced", "force"),
        (fl.audit, "date", "data"),
    ],
)
def test_every_function_reports_an_unknown_keyword_alike(call: Callable[..., object], name: str, similar: str) -> None:
    with pytest.raises(fl.UserError, match=f"^there is no option '{name}'; did you mean {similar}[ ?]"):
        call("demo", **{name: 1})


def test_a_dry_run_returns_a_plan_that_can_be_printed(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    plan = fl.tune(image_folder, trials=2, sweep=False, dry_run=True)
    assert plan.audit.num_images == 24
    assert plan.recipe.backbone is not None, "auto is resolved"
    assert "24 images in 3 classes" in str(plan)
    assert "plan: 2 trials of up to 8 epochs" in str(plan)
    assert repr(plan) == str(plan), "it is readable in a notebook"
    assert not (tmp_path / "mlflow.db").exists(), "nothing is tracked"


@pytest.mark.parametrize("call", [fl.resume, fl.promote, fl.load])
def test_a_wrong_name_is_a_user_error(call: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(fl.UserError):
        call("models:/nowhere/1")  # type: ignore[operator]


def test_the_exceptions_are_one_tree() -> None:
    for kind in (fl.SettingError, fl.DataError, fl.BackboneError, fl.TrackingError):
        assert issubclass(kind, fl.UserError)
    assert issubclass(fl.UserError, fl.FreezelineError)
    assert issubclass(fl.SearchError, fl.FreezelineError)


def test_every_public_function_is_documented_and_exported() -> None:
    assert {"tune", "resume", "train", "evaluate", "predict", "promote", "audit", "load"} <= set(fl.__all__)
    assert all(getattr(fl, name).__doc__ for name in fl.__all__ if name != "__version__")


def test_the_import_is_light(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parent)}
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_the_environment_of_the_caller_is_restored_except_for_rays_authentication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith(("RAY_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_RUN_ID", "mine")
    before = dict(os.environ)
    with fl._environment():
        assert os.environ["MLFLOW_LOGGING_LEVEL"] == "ERROR"
        assert "MLFLOW_RUN_ID" not in os.environ
        token = os.environ["RAY_AUTH_TOKEN"]
    kept = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    assert dict(os.environ) == {**before, **kept}
    with fl._environment():
        assert os.environ["RAY_AUTH_TOKEN"] == token, "Ray reads it once per process"
    for name in kept:
        monkeypatch.delenv(name)


def test_a_search_in_another_thread_is_refused() -> None:
    errors: list[BaseException] = []

    def call() -> None:
        try:
            fl.tune("demo", minutes=1)
        except fl.UserError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "must run in the main thread" in str(errors[0])


def test_an_audit_is_a_value(image_folder: Path) -> None:
    audit = fl.audit(image_folder)
    assert audit.num_images == 24
    assert set(audit.counts["train"]) == {"blue", "green", "red"}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    config = trial_config().model_copy(update={"network": NetworkConfig(backbone="test_efficientnet", weights="none")})
    return make_package(tmp_path_factory.mktemp("packaged"), config)


def test_predictions_have_a_table(packaged: Packaged, tmp_path: Path) -> None:
    model = str(packaged.model)
    (tmp_path / "broken.png").write_text("no image")
    predictions = fl.predict(model, [packaged.image_file, tmp_path / "broken.png"])
    assert isinstance(predictions, Predictions)
    assert [bool(each.error) for each in predictions] == [False, True]
    table = predictions.to_dataframe()
    assert list(table.columns[:4]) == ["file", "label", "score", "error"]
    assert table.loc[0, predictions[0].label] == predictions[0].score


def test_a_loaded_model_accepts_every_kind_of_image(packaged: Packaged) -> None:
    model = fl.load(str(packaged.model))
    image = Image.open(packaged.image_file).convert("RGB")
    kinds = [packaged.image_file, str(packaged.image_file), packaged.image_file.read_bytes(), image, np.array(image)]
    labels = model.predict(kinds)["label"]
    assert len(labels) == len(kinds)
    assert set(labels) == {model.predict(image)["label"][0]} == {model.predict(np.array(image))["label"][0]}


def test_loading_and_predicting_leaves_the_stored_package_unchanged(
    packaged: Packaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(packaged.model.rglob("*"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in [name for name in sys.modules if name.startswith("_packaged_preprocess_")]:
        monkeypatch.delitem(sys.modules, name)  # otherwise it is not loaded again
    fl.load(str(packaged.model)).predict(packaged.image_file)
    assert sorted(packaged.model.rglob("*")) == files
    assert not sys.dont_write_bytecode


def test_results_are_readable() -> None:
    result = TrainingResult(candidate(0.8))
    assert result.test_metrics["accuracy"] == Metric(0.8, pytest.approx(0.75), pytest.approx(0.85))
    assert str(result.test_metrics["accuracy"]) == "0.8000 [95% CI 0.7500, 0.8500]"
    assert result.best_config == candidate(0.8).members[0].config
    assert TrainingResult(ensemble()).best_config == ensemble().members[0].config
    promotion = Promotion(alias="champion", reason="first", evidence={})
    assert str(PromotionResult(candidate(), 3, promotion)) == "models:/pets@champion is now version 3: first."


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchPaths:
    """Return the folder of a finished search with the parent run ``run``, which exceeded its budget."""
    monkeypatch.setenv("FREEZELINE_HOME", str(tmp_path))
    paths = SearchPaths.from_search_id("run")
    winner = run_trial(trial_store(paths.root), 0.8)
    paths.recipe.write_text(recipe(minutes=1).to_json())
    target = RunTarget(search_id="run", experiment="pets", run_id="run", experiment_id="1", tags={}, time_ms=0)
    paths.target.write_text(target.to_json())
    Elapsed(68.0).save(paths.elapsed)
    packaged = PackagedWinner(
        trial_uids=(winner.trial_uid,),
        candidate=candidate(0.8),
        version=3,
        promotion=Promotion(alias="challenger", reason="no gain", evidence={}),
        warnings=("the test split is small",),
    )
    paths.packaged_winner.write_text(packaged.to_json())
    return paths


def test_a_result_is_loaded_without_training(finished: SearchPaths) -> None:
    result = fl.load_result("run")
    assert result.promotion is not None
    assert (result.promotion.alias, result.promotion.reason, result.promotion.version) == ("challenger", "no gain", 3)
    assert result.warnings == ("the test split is small",)
    assert result.best_params == result.winner.settings
    assert list(result.leaderboard["trial"]) == [0]


def test_a_printed_result_has_the_decision_the_warnings_and_the_exceeded_budget(finished: SearchPaths) -> None:
    result = fl.load_result("run")
    title, *metrics, decision, warning, time = str(result).splitlines()
    assert title == "search run: 1 trial, the winner is trial 0"
    assert all(" on test: " in line for line in metrics)
    assert decision == "models:/pets@challenger is now version 3: no gain."
    assert warning == "warning: the test split is small"
    assert time == "time: 1:08, 0:08 over the budget of 1:00"


def test_a_result_without_a_model_cannot_be_loaded(finished: SearchPaths) -> None:
    finished.packaged_winner.unlink()
    with pytest.raises(fl.TrackingError, match="run must be a search that has a model, got 'run', which has none yet"):
        fl.load_result("run")
    with pytest.raises(fl.TrackingError, match="got 'nowhere', which has no folder here"):
        fl.load_result("nowhere")


def test_a_resumed_search_that_reuses_its_model_has_the_present_number_of_test_evaluations(
    finished: SearchPaths, image_folder: Path
) -> None:
    dataset, winner = load_dataset(str(image_folder)), fl.load_result("run").winner
    search: Any = SimpleNamespace(paths=finished, dataset=dataset)
    result: Any = SimpleNamespace(members=[SimpleNamespace(trial=winner)])
    for _ in range(3):
        record_test_evaluation(dataset)
    assert _package_winner(search, result).test_evaluations == 3


def test_values_are_short_in_a_notebook(finished: SearchPaths, image_folder: Path, packaged: Packaged) -> None:
    result, audit = fl.load_result("run"), fl.audit(image_folder)
    evaluation = EvaluationContent(
        model="models:/pets@champion",
        created="",
        data="pets",
        split="test",
        data_fingerprint="",
        scores=compute_metrics(np.eye(2), np.arange(2), ("cat", "dog")),
        intervals={"accuracy": (0.5, 1.0)},
        calibration_error=0.0,
        mistakes=(),
    )
    assert repr(result) == str(result)
    assert repr(result.promotion) == "models:/pets@challenger is now version 3: no gain."
    assert repr(result.best_config).startswith("TrialConfig(backbone='")
    assert repr(audit).startswith(f"{audit.name}: 24 images in 3 classes")
    assert repr(evaluation).splitlines() == [
        "models:/pets@champion on 2 images of pets (test)",
        "accuracy 1.0000 [95% CI 0.5000, 1.0000]",
    ]
    for value in (result, result.promotion, result.best_config, audit, evaluation):
        assert len(repr(value)) < 1000


def test_a_search_of_a_missing_folder_creates_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for function in (fl.tune, fl.train):
        with pytest.raises(fl.UserError, match="data must be an existing folder, got nix"):
            function("nix", weights="none")
    assert list(tmp_path.glob("mlflow*")) == []


def test_a_notebook_without_ipywidgets_shows_no_warning_of_tqdm() -> None:
    code = (
        "import sys, types; sys.modules |= {'ipywidgets': None, 'ipykernel.zmqshell': types.ModuleType('z'), "
        "'IPython': types.SimpleNamespace(get_ipython=lambda: None)}\n"
        "import freezeline\nwith freezeline._environment(): import tqdm.auto"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fl.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_report_is_displayed_in_a_frame_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text('<p title="x">ü</p>')
    assert Report(file)._repr_html_().startswith('<iframe srcdoc="&lt;p title=&quot;x&quot;&gt;ü&lt;/p&gt;"')


def test_the_active_run_of_the_caller_is_neither_used_nor_ended(
    client: MlflowClient, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    model = FakeModel(("blue", "green", "red"))
    monkeypatch.setattr("tuning.registry.candidate_store.load_model", lambda _: model)
    with mlflow.start_run() as run:
        fl.evaluate("m", image_folder)
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id
    stored = client.get_run(run.info.run_id)
    assert stored.info.status == "FINISHED"
    assert (stored.data.metrics, stored.data.params, stored.inputs.dataset_inputs) == ({}, {}, [])
