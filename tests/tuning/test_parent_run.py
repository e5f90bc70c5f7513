"""Parent run: opened, described and always ended; an unusable tracking store is a user error."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from mlflow.artifacts import load_text
from mlflow.types import Schema

from data.errors import TrackingError, UserError
from tests.tuning.factories import dataset, recipe
from tuning.common.signals import SignalHandler
from tuning.tracking.connection import absolute_uri, connect, connect_to_existing, store_text, tracking_uri
from tuning.tracking.environment import REPOSITORY, code_version, environment_info
from tuning.tracking.experiment import view_key
from tuning.tracking.operations import StartRun
from tuning.tracking.parent_run import ParentRun, get_or_create_experiment, parent_run_lifecycle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def parent(client: MlflowClient) -> ParentRun:
    return ParentRun.open(client, None, "pets")


def run_of(parent: ParentRun) -> Run:
    """Return the run after all operations are delivered."""
    assert parent.client is not None
    assert parent.writer.flush() == ()
    return parent.client.get_run(parent.run_id)


def status(parent: ParentRun) -> tuple[str, str | None]:
    assert parent.client is not None
    run = parent.client.get_run(parent.run_id)
    return run.info.status, run.data.tags.get("reason")


# --- the run of mlflow run ---


def test_a_run_starts_with_its_command(client: MlflowClient) -> None:
    parent = ParentRun.open(client, None, "pets", started_s=1_000_000.5)
    assert client.get_run(parent.run_id).info.start_time == 1_000_000_500


def test_a_search_uses_the_run_of_mlflow_run(client: MlflowClient) -> None:
    run = client.create_run(client.create_experiment("elsewhere"))
    parent = ParentRun.open(client, run.info.run_id, "pets")
    assert (parent.run_id, parent.experiment_id) == (run.info.run_id, run.info.experiment_id)
    assert client.get_experiment_by_name("pets") is None


def test_a_run_id_that_does_not_exist_is_an_error(client: MlflowClient) -> None:
    with pytest.raises(TrackingError, match="MLFLOW_RUN_ID"):
        ParentRun.open(client, "0" * 32, "pets")


def test_a_new_parent_run_is_in_the_experiment_of_its_name(parent: ParentRun) -> None:
    run = run_of(parent)
    assert parent.client.get_experiment(parent.experiment_id).name == "pets"
    assert (run.info.run_name, run.info.status) == ("pets", "RUNNING")
    assert "mlflow.user" in run.data.tags


def test_a_trials_run_is_a_child_of_the_parent(parent: ParentRun, client: MlflowClient) -> None:
    parent.writer.send(StartRun("uid0", "trial-000", {}, {}))
    assert parent.writer.flush() == ()
    tags = client.get_run(parent.writer.outbox.run_ids["uid0"]).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert "mlflow.user" in tags


# --- its content ---


def test_the_parent_has_the_recipe_the_data_set_and_the_code_version(parent: ParentRun, tmp_path: Path) -> None:
    pets = dataset(tmp_path)
    parent.log_search_metadata(recipe(lr="1e-3,1e-2").model_dump(mode="json"), {"freezeline.search_folder": "/x"}, pets)
    run = run_of(parent)
    expected = {"recipe.lr": "0.001,0.01", "recipe.trials": "None", "recipe.optimizer": "adamw,adam,sgd"}
    assert expected.items() <= run.data.params.items()
    assert run.data.tags["freezeline.search_folder"] == "/x"
    assert code_version().items() <= run.data.tags.items()
    (dataset_input,) = run.inputs.dataset_inputs
    assert (dataset_input.dataset.name, dataset_input.dataset.digest) == ("pets", pets.fingerprint)
    schema = Schema.from_json(json.dumps(json.loads(dataset_input.dataset.schema)["mlflow_colspec"]))
    assert [(str(column.type), column.name) for column in schema] == [
        ("DataType.binary", "image"),
        ("DataType.string", "label"),
    ]
    assert "environment.json" in {file.path for file in parent.client.list_artifacts(parent.run_id)}


def test_the_recipe_does_not_collide_with_the_params_of_mlflow_run(client: MlflowClient, tmp_path: Path) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "trials", "'3'")
    parent = ParentRun.open(client, run_id, "pets")
    parent.log_search_metadata({"trials": 3}, {}, dataset(tmp_path))
    params = run_of(parent).data.params
    assert params == {"trials": "'3'", "recipe.trials": "3"}


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="not a git checkout")
def test_the_code_version_is_the_commit_of_the_checkout() -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert code_version()["freezeline.git_commit"] == commit.stdout.strip()
    assert code_version()["freezeline.git_dirty"] in {"true", "false"}


def test_the_code_version_is_empty_outside_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuning.tracking.environment.REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version() == {}


def test_the_environment_has_every_package_and_the_hardware() -> None:
    info = environment_info()
    packages, machine = info["packages"], info["hardware"]
    assert isinstance(packages, dict)
    assert {"mlflow", "optuna", "torch"} <= set(packages)
    assert isinstance(machine, dict)
    assert machine["processor"]
    assert machine["memory_gb"] == round(psutil.virtual_memory().total / 1e9, 1)
    assert isinstance(machine["cores"], int)
    assert isinstance(machine["accelerators"], list)


def test_metrics_of_an_epoch_and_final_metrics_are_logged(parent: ParentRun, client: MlflowClient) -> None:
    parent.log_epoch(3, {"val_loss": 0.25})
    parent.log_metrics({"test_accuracy": 0.5})
    assert run_of(parent).data.metrics["test_accuracy"] == 0.5
    (point,) = client.get_metric_history(parent.run_id, "val_loss")
    assert (point.step, point.value) == (3, 0.25)


@pytest.mark.parametrize("is_created_by_mlflow_run", [True, False])
def test_a_parent_run_is_renamed(client: MlflowClient, is_created_by_mlflow_run: bool) -> None:
    run_id = client.create_run("0", run_name="amusing-foal-380").info.run_id if is_created_by_mlflow_run else None
    parent = ParentRun.open(client, run_id, "pets")
    parent.rename("pets 5 min -> 0.962 test")
    assert run_of(parent).info.run_name == "pets 5 min -> 0.962 test"


def test_the_ui_shows_a_table_of_the_parent_as_a_table(parent: ParentRun) -> None:
    parent.log_table(["class", "recall"], [["cat", 0.5]], "classes.json")
    assert json.loads(run_of(parent).data.tags["mlflow.loggedArtifacts"]) == [{"path": "classes.json", "type": "table"}]
    table = json.loads(load_text(f"runs:/{parent.run_id}/classes.json"))
    assert table == {"columns": ["class", "recall"], "data": [["cat", 0.5]]}


# --- its end ---


def test_a_search_that_completes_is_finished(parent: ParentRun) -> None:
    with parent_run_lifecycle(parent, SignalHandler()):
        assert status(parent)[0] == "RUNNING"
    assert status(parent) == ("FINISHED", None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("lr is wrong", "so is data"), ("FAILED", "UserError: lr is wrong\nso is data")),
        (RuntimeError("boom"), ("FAILED", "RuntimeError: boom")),
        (RuntimeError("x" * 20_000), ("FAILED", f"RuntimeError: {'x' * 20_000}"[:8000])),
        (KeyboardInterrupt(), ("KILLED", "stopped by the user")),
        (SystemExit(3), ("FAILED", "SystemExit: 3")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_search_that_raises_ends_with_its_reason(
    parent: ParentRun, error: BaseException, expected: tuple[str, str]
) -> None:
    with pytest.raises(type(error), match=str(error)[:10] or "^$"), parent_run_lifecycle(parent, SignalHandler()):
        raise error
    assert status(parent) == expected


def signals_after_ctrl_c() -> SignalHandler:
    signals = SignalHandler()
    with signals.on_first_signal(lambda: None):
        signals.handle(2, None)
    return signals


def test_a_search_that_the_user_stopped_is_killed(parent: ParentRun) -> None:
    with parent_run_lifecycle(parent, signals_after_ctrl_c()):
        pass
    assert status(parent) == ("KILLED", "stopped by the user")


def test_a_finished_search_stays_finished_if_the_user_stops_its_resume(parent: ParentRun) -> None:
    with parent_run_lifecycle(parent, SignalHandler()):
        pass
    resumed = ParentRun.open(parent.client, parent.run_id, "pets")
    was_finished = resumed.reopen()
    assert was_finished
    assert status(resumed)[0] == "RUNNING"
    assert not resumed.reopen()
    with parent_run_lifecycle(resumed, signals_after_ctrl_c(), was_finished):
        pass
    assert status(resumed) == ("FINISHED", "the search had finished; the user stopped its resume")


def test_a_search_that_fails_after_the_user_stopped_it_is_killed(parent: ParentRun) -> None:
    with pytest.raises(RuntimeError, match="boom"), parent_run_lifecycle(parent, signals_after_ctrl_c()):
        raise RuntimeError("boom")
    assert status(parent) == ("KILLED", "stopped by the user")


def test_a_signal_while_the_run_ends_does_not_leave_it_running(
    parent: ParentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = SignalHandler()
    end = ParentRun.end

    def end_during_signal(self: ParentRun, *args: str) -> None:
        signals.handle(2, None)
        end(self, *args)

    monkeypatch.setattr(ParentRun, "end", end_during_signal)
    with parent_run_lifecycle(parent, signals):
        pass
    assert status(parent)[0] == "FINISHED"


# --- the experiment ---


def test_an_experiment_has_a_description_a_primary_metric_and_a_view_of_each_search(client: MlflowClient) -> None:
    first, second = ParentRun.open(client, None, "pets"), ParentRun.open(client, None, "pets")
    tags = client.get_experiment(first.experiment_id).tags
    assert "best_val_balanced_accuracy" in tags["mlflow.note.content"]
    link = f"#/experiments/{first.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=searches"
    assert f"({link})" in tags["mlflow.note.content"]
    assert json.loads(tags["mlflow.sharedViewState.searches"])["orderByKey"] == "metrics.`test_balanced_accuracy`"
    assert tags["mlflow.experiment.primaryMetric.name"] == "best_val_balanced_accuracy"
    for parent in (first, second):
        view = json.loads(tags[f"mlflow.sharedViewState.{view_key(parent.run_id)}"])
        assert view["searchFilter"] == f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
        assert view["selectedColumns"][0] == view["orderByKey"] == "metrics.`best_val_balanced_accuracy`"


def test_a_persons_description_and_primary_metric_of_an_experiment_stay(client: MlflowClient) -> None:
    ours = {"mlflow.note.content": "ours", "mlflow.experiment.primaryMetric.name": "val_loss"}
    experiment_id = client.create_experiment("pets", tags=ours)
    ParentRun.open(client, None, "pets")
    assert ours.items() <= client.get_experiment(experiment_id).tags.items()


def test_an_experiment_is_created_once(client: MlflowClient) -> None:
    assert get_or_create_experiment(client, "pets") == get_or_create_experiment(client, "pets")


def test_two_searches_that_create_an_experiment_concurrently_share_it(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    barrier = threading.Barrier(2, timeout=10)
    get_experiment = client.get_experiment_by_name
    thread_state = threading.local()

    def get_experiment_concurrently(name: str) -> Any:
        experiment = get_experiment(name)
        if not getattr(thread_state, "has_waited", False):
            thread_state.has_waited = True
            barrier.wait()
        return experiment

    monkeypatch.setattr(client, "get_experiment_by_name", get_experiment_concurrently)
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(get_or_create_experiment(client, "pets"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_deleted_experiment_is_an_error_with_a_next_step(client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("pets"))
    with pytest.raises(
        TrackingError, match=r"experiment 'pets' has been deleted in MLflow; restore it .* or use another --name"
    ):
        get_or_create_experiment(client, "pets")


# --- the tracking store ---


def test_the_configured_tracking_store_is_used(tracking: str) -> None:
    assert tracking_uri() == tracking
    assert [experiment.name for experiment in connect().search_experiments()] == ["Default"]


def test_a_database_that_does_not_exist_is_not_created_by_a_command_that_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db?timeout=5")
    with pytest.raises(TrackingError, match=f"there is no {tmp_path}/mlflow.db; run the command in the folder of the"):
        connect_to_existing()
    assert not list(tmp_path.iterdir())


def test_a_message_names_the_store_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/mlflow")
    assert store_text() == "postgresql://host/mlflow"


def test_a_relative_database_uri_becomes_absolute() -> None:
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{Path.cwd()}/mlflow.db"
    for uri in ("sqlite:////tmp/mlflow.db", "http://127.0.0.1:5000", "postgresql://u@host/db"):
        assert absolute_uri(uri) == uri


def test_a_server_that_is_not_running_is_reported_within_seconds(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port}")
    start_s = time.monotonic()
    with pytest.raises(TrackingError, match=r"available, but http://me:\*\*\*@127") as error:
        connect()
    assert time.monotonic() - start_s < 5
    assert "secret" not in str(error.value)


class ForbiddenHandler(BaseHTTPRequestHandler):
    """Answers every request with 403."""

    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: Any) -> None:
        """Suppress the log."""


@pytest.fixture
def forbidden_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), ForbiddenHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(10)


def test_a_server_that_refuses_access_is_an_error(forbidden_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", forbidden_server)
    with pytest.raises(TrackingError, match=r"is not \(HTTPError\); start it, correct MLFLOW_TRACKING_URI"):
        connect()


def test_a_tracking_store_of_an_unknown_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://home")
    with pytest.raises(TrackingError, match="the tracking store carrier-pigeon://home must be usable"):
        connect()


def test_a_database_that_is_not_running_is_reported_without_a_long_wait(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeps_s: list[float] = []
    monkeypatch.setattr("mlflow.store.db.utils.time", SimpleNamespace(sleep=sleeps_s.append))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:secret@127.0.0.1:{closed_port}/mlflow")
    with pytest.raises(TrackingError, match="must") as error:
        connect()
    assert "secret" not in str(error.value)
    assert sum(sleeps_s) < 10
