"""Trial logger: content and status of the trials' runs in MLflow."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.training.predictions import HeldOutLogits, load_predictions, save_predictions
from models.trial_config import UNUSED_BY_PROBES, FitConfig
from tests.tuning.factories import dataset, epoch_report, trial_record
from tests.tuning.mlflow_helpers import EXPERIMENT, metric_points, only_run, open_writer
from tuning.common.formatting import budget_text, run_name, search_name
from tuning.common.names import OBJECTIVE_METRIC
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord, TrialReport
from tuning.tracking.dataset_input import folds_csv
from tuning.tracking.trial_logger import TrialLogger, trial_params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PATHS = SearchPaths(Path("no search"))
DATASET = {"name": "pets", "digest": "f00d", "source_type": "local", "source": "{}"}

pytestmark = pytest.mark.usefixtures("no_pauses")


def run_after(client: MlflowClient, *calls: Callable[[TrialLogger], None]) -> Run:
    """Return the only run after the calls of a new trial logger."""
    writer = open_writer(client)
    trial_logger = TrialLogger(writer, DATASET, PATHS)
    for call in calls:
        call(trial_logger)
    assert writer.close() == ()
    return only_run(client)


def before_first_epoch(trial: TrialRecord) -> TrialRecord:
    return trial.model_copy(update={"history": (), "runtime_info": {}, "status": "running"})


@pytest.mark.parametrize(
    ("status", "run_status"),
    [
        ("complete", "FINISHED"),
        ("out of time", "FINISHED"),
        ("pruned", "KILLED"),
        ("failed", "FAILED"),
        ("running", "KILLED"),
    ],
)
def test_a_trials_status_becomes_the_status_of_its_run(client: MlflowClient, status: Any, run_status: str) -> None:
    trial = trial_record(status=status, reason="because")
    run = run_after(
        client, lambda logger: logger.on_trial_start(trial), lambda logger: logger.on_trial_end(trial, None)
    )
    assert (run.info.status, run.data.tags["reason"], run.data.tags["status"]) == (run_status, "because", status)


def test_operations_that_a_killed_process_did_not_send_are_sent_once(client: MlflowClient) -> None:
    """It sent the start and first epoch of trials 1 and 5, all of trial 3, and nothing of trials 2 and 4."""
    first, second, third = trial_record(1), trial_record(2), trial_record(3)
    not_started, resumed = trial_record(4, None, "running"), trial_record(5, 0.5, "running")
    writer = open_writer(client)
    trial_logger = TrialLogger(writer, DATASET, PATHS)
    for trial in (first, resumed):
        trial_logger.on_trial_start(before_first_epoch(trial))
        trial_logger.on_epoch_end(trial, epoch_report(1, 0.45))
    trial_logger.on_trial_start(before_first_epoch(third))
    for number, metrics in enumerate(third.history, start=1):
        trial_logger.on_epoch_end(third, epoch_report(number, metrics[OBJECTIVE_METRIC]))
    trial_logger.on_trial_end(third, None)
    writer.close()
    next_writer = open_writer(client)
    TrialLogger(next_writer, DATASET, PATHS).replay_missing([first, second, third, not_started, resumed])
    next_writer.close()
    runs = client.search_runs([EXPERIMENT])
    assert sorted((run.data.params["trial"], run.info.status) for run in runs) == [
        ("1", "FINISHED"),
        ("2", "FINISHED"),
        ("3", "FINISHED"),
        ("5", "RUNNING"),
    ]
    for run in runs:
        assert [step for step, *_ in metric_points(client, run, OBJECTIVE_METRIC)] == [1, 2, 3]
        assert len(run.inputs.dataset_inputs) == 1


def test_a_trials_run_has_its_settings_epochs_runtime_info_and_best_scores(client: MlflowClient) -> None:
    trial = trial_record(number=7, score=0.8)
    run = run_after(
        client,
        lambda logger: logger.on_trial_start(before_first_epoch(trial)),
        lambda logger: logger.on_epoch_end(trial, epoch_report(1, 0.7)),
        lambda logger: logger.on_epoch_end(trial, epoch_report(2, 0.8)),
        lambda logger: logger.on_trial_end(trial, TrialReport(status="complete", epoch=2)),
    )
    assert run.info.run_name == "t007 lite0@32 9/18"
    (dataset_input,) = run.inputs.dataset_inputs
    assert (dataset_input.dataset.name, dataset_input.dataset.digest) == ("pets", "f00d")
    expected = {"trial": "7", "lr": "0.001", "log10_lr": "-3.0", "optimizer": "adamw"}
    assert (expected | {"image_size": "32", "blocks": "18"}).items() <= run.data.params.items()
    assert [value for _, value, _ in metric_points(client, run, "val_balanced_accuracy")] == [0.7, 0.8]
    assert (run.data.metrics["best_val_balanced_accuracy"], run.data.metrics["best_epoch"]) == (0.8, 2)
    assert trial.config.from_json(run.data.tags["freezeline.trial_config"]) == trial.config


def test_the_params_of_a_trial_are_its_settings_that_have_an_effect() -> None:
    trial = trial_record()
    dumped = trial.config.model_dump()
    names = {name for part in ("network", "batches", "fit", "features") for name in dumped[part]}
    assert set(trial_params(trial)) == names | {"image_size", "seed", "log10_lr"}
    network = trial.config.network.model_copy(update={"freeze_fraction": 1})
    fit = trial.config.fit.model_copy(update={"optimizer": "lbfgs"})
    config = trial.config.model_copy(update={"network": network, "fit": fit})
    settings = {"image_size": 32, "freeze_fraction": 1, "optimizer": "lbfgs", "variant": "small"}
    params = trial_params(trial.model_copy(update={"config": config, "settings": settings}))
    assert set(params) == names - set(UNUSED_BY_PROBES) | {"image_size", "seed", "variant"}
    assert (params["seed"], params["weights"], params["optimizer"]) == (3, "none", "lbfgs")


def test_runtime_info_that_changed_by_the_end_becomes_a_tag(client: MlflowClient) -> None:
    first, last = {"blocks": 18, "features": "fp16"}, {"blocks": 18, "features": "uncached (disk full)"}
    trial = trial_record().model_copy(update={"runtime_info": last})
    run = run_after(
        client,
        lambda logger: logger.on_trial_start(before_first_epoch(trial)),
        lambda logger: logger.on_epoch_end(trial, epoch_report(1, 0.7).model_copy(update={"runtime_info": first})),
        lambda logger: logger.on_epoch_end(trial, epoch_report(2, 0.8).model_copy(update={"runtime_info": last})),
        lambda logger: logger.on_trial_end(trial, TrialReport(status="complete", epoch=2)),
    )
    assert (run.data.params["features"], run.data.tags["features"]) == ("fp16", "uncached (disk full)")
    assert "blocks" not in run.data.tags


def test_a_failed_trials_run_has_the_traceback(client: MlflowClient) -> None:
    failed = trial_record(score=None, status="failed", reason="ValueError: no")
    report = TrialReport(status="failed", epoch=0, traceback="Traceback: no")
    run = run_after(
        client, lambda logger: logger.on_trial_start(failed), lambda logger: logger.on_trial_end(failed, report)
    )
    from mlflow.artifacts import load_text

    assert load_text(f"{run.info.artifact_uri}/traceback.txt") == "Traceback: no"
    assert run.data.metrics == {}


def test_the_out_of_fold_predictions_are_an_artifact_whose_rows_the_folds_name(
    client: MlflowClient, tmp_path: Path
) -> None:
    from mlflow.artifacts import download_artifacts

    pets, paths, trial = dataset(tmp_path), SearchPaths(tmp_path), trial_record()
    config = trial.config.model_copy(update={"fit": FitConfig(optimizer="lbfgs", validation="folds")})
    probe = trial.model_copy(update={"config": config})
    paths.trials.mkdir()
    oof = np.arange(2.0 * len(pets.development)).reshape(-1, 2)
    save_predictions(paths.predictions(probe.trial_uid), HeldOutLogits(oof[8:], oof))
    writer = open_writer(client)
    trial_logger = TrialLogger(writer, DATASET, paths)
    trial_logger.on_trial_start(probe)
    trial_logger.on_trial_end(probe, None)
    assert writer.close() == ()
    uri = f"{only_run(client).info.artifact_uri}/{probe.trial_uid}.predictions.npz"
    logged = load_predictions(Path(download_artifacts(uri, dst_path=str(tmp_path / "logged"))))
    assert logged is not None
    assert logged.oof is not None
    rows = list(csv.DictReader(folds_csv(pets).splitlines()))
    assert len(rows) == len(logged.oof)
    assert rows[0].keys() == {"image", "class", "split", "fold"}
    assert [row["image"] for row in rows] == [sample.path for sample in pets.development]
    assert {row["fold"] for row in rows} == {"0", "1", "2", "3", "4"}


@pytest.mark.parametrize(
    ("backbone", "variant", "name"),
    [
        ("tf_efficientnet_lite2", "", "t018 lite2@32"),
        ("resnet34", "", "t018 resnet34@32"),
        ("resnet34", "deep", "t018 deep@32"),
    ],
)
def test_a_running_trials_name_has_its_number_network_and_image_size(backbone: str, variant: str, name: str) -> None:
    trial = trial_record(18)
    network = trial.config.network.model_copy(update={"backbone": backbone})
    config = trial.config.model_copy(update={"network": network})
    settings = {**trial.settings, "variant": variant}
    assert run_name(trial.model_copy(update={"config": config, "settings": settings, "runtime_info": {}})) == name


@pytest.mark.parametrize(
    ("budget_s", "trials", "budget", "name"),
    [
        (300.0, 16, "5 min or 16 trials", "pets 5 min"),
        (90.0, None, "1.5 min", "pets 1.5 min"),
        (None, 1, "1 trial", "pets 1 trial"),
        (None, None, "", "pets"),
    ],
)
def test_a_searchs_name_has_the_first_part_of_its_budget(
    budget_s: float | None, trials: int | None, budget: str, name: str
) -> None:
    assert budget_text(budget_s, trials) == budget
    assert search_name("pets", budget_s, trials) == name
