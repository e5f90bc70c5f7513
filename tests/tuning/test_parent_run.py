"""The parent run: opened, described and ended whatever happens; a store that can't be used is a user's mistake."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from data.errors import TrackingError, UserError
from tests.tuning.factories import dataset, recipe
from tuning.common.signals import SignalHandler
from tuning.tracking.connection import connect, hide_password, pop_run_id_from_env, tracking_uri
from tuning.tracking.environment import REPOSITORY, code_version, environment_info, machine_info
from tuning.tracking.operations import StartRun
from tuning.tracking.parent_run import ParentRun, parent_run_lifecycle
from tuning.tracking.run_target import get_or_create_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def parent(client: MlflowClient) -> ParentRun:
    return ParentRun.open(client, None, "pets")


def run_of(parent: ParentRun) -> Run:
    """Return the run once all that was sent to it is there."""
    assert parent.client is not None
    assert parent.writer.flush() == ()
    return parent.client.get_run(parent.run_id)


def status(parent: ParentRun) -> tuple[str, str | None]:
    assert parent.client is not None
    run = parent.client.get_run(parent.run_id)
    return run.info.status, run.data.tags.get("reason")


# --- the run that mlflow run opened ---


def test_the_given_run_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert pop_run_id_from_env() == "abc"
    assert "MLFLOW_RUN_ID" not in os.environ
    assert pop_run_id_from_env() is None


def test_an_empty_run_id_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    assert pop_run_id_from_env() is None


def test_a_search_goes_on_in_the_run_it_is_given(client: MlflowClient) -> None:
    given = client.create_run(client.create_experiment("elsewhere"))
    parent = ParentRun.open(client, given.info.run_id, "pets")
    assert (parent.run_id, parent.experiment_id) == (given.info.run_id, given.info.experiment_id)
    assert client.get_experiment_by_name("pets") is None


def test_a_given_run_that_does_not_exist_is_a_mistake(client: MlflowClient) -> None:
    with pytest.raises(TrackingError, match="MLFLOW_RUN_ID"):
        ParentRun.open(client, "0" * 32, "pets")


def test_a_run_of_its_own_is_in_the_experiment_of_its_name(parent: ParentRun) -> None:
    run = run_of(parent)
    assert parent.client.get_experiment(parent.experiment_id).name == "pets"
    assert (run.info.run_name, run.info.status) == ("pets", "RUNNING")
    assert "mlflow.user" in run.data.tags


def test_a_trials_run_lies_below_the_parent(parent: ParentRun, client: MlflowClient) -> None:
    parent.writer.send(StartRun("uid0", "trial-000", {}, {}))
    assert parent.writer.flush() == ()
    tags = client.get_run(parent.writer.run_ids()["uid0"]).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert "mlflow.user" in tags


# --- what it says ---


def test_the_parent_says_what_was_asked_for_on_which_data_with_which_code(parent: ParentRun, tmp_path: Path) -> None:
    pets = dataset(tmp_path)
    parent.log_search_metadata(recipe(lr="1e-3,1e-2").model_dump(mode="json"), {"search_folder": "/x"}, pets)
    run = run_of(parent)
    wanted = {"recipe.lr": "0.001,0.01", "recipe.trials": "None", "recipe.optimizer": "adamw,adam,sgd"}
    assert wanted.items() <= run.data.params.items()
    assert run.data.tags["freezeline.search_folder"] == "/x"
    assert code_version().items() <= run.data.tags.items()
    (logged,) = run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("pets", pets.fingerprint)
    assert "environment.json" in {file.path for file in parent.client.list_artifacts(parent.run_id)}


def test_the_recipe_can_be_logged_beside_what_mlflow_run_logged(client: MlflowClient, tmp_path: Path) -> None:
    given = client.create_run("0")
    client.log_param(given.info.run_id, "trials", "'3'")
    parent = ParentRun.open(client, given.info.run_id, "pets")
    parent.log_search_metadata({"trials": 3}, {}, dataset(tmp_path))
    params = run_of(parent).data.params
    assert params == {"trials": "'3'", "recipe.trials": "3"}


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="this is no git checkout")
def test_the_code_is_the_checkouts_commit() -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert code_version()["git_commit"] == commit.stdout.strip()
    assert code_version()["git_dirty"] in {"true", "false"}


def test_the_code_has_no_version_outside_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tuning.tracking.environment.REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version() == {}


def test_the_environment_names_every_package_and_the_hardware() -> None:
    told = environment_info()
    packages, machine = told["packages"], told["hardware"]
    assert isinstance(packages, dict)
    assert {"mlflow", "optuna", "torch"} <= set(packages)
    assert machine == machine_info()


def test_metrics_of_an_epoch_and_final_numbers_are_logged(parent: ParentRun, client: MlflowClient) -> None:
    parent.log_epoch(3, {"val_loss": 0.25}, time_ms=77)
    parent.log_metrics({"test_accuracy": 0.5})
    assert run_of(parent).data.metrics["test_accuracy"] == 0.5
    (point,) = client.get_metric_history(parent.run_id, "val_loss")
    assert (point.step, point.timestamp, point.value) == (3, 77, 0.25)


# --- how it ends ---


def test_a_search_that_ends_is_finished(parent: ParentRun) -> None:
    with parent_run_lifecycle(parent, SignalHandler()):
        assert status(parent)[0] == "RUNNING"
    assert status(parent) == ("FINISHED", None)


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (UserError("lr is wrong", "so is data"), ("FAILED", "UserError: lr is wrong\nso is data")),
        (RuntimeError("boom"), ("FAILED", "RuntimeError: boom")),
        (RuntimeError("x" * 20_000), ("FAILED", f"RuntimeError: {'x' * 20_000}"[:8000])),
        (KeyboardInterrupt(), ("KILLED", "the user asked to end")),
        (SystemExit(3), ("FAILED", "SystemExit: 3")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_search_that_raises_ends_with_its_reason(
    parent: ParentRun, error: BaseException, ended: tuple[str, str]
) -> None:
    with pytest.raises(type(error), match=str(error)[:10] or "^$"), parent_run_lifecycle(parent, SignalHandler()):
        raise error
    assert status(parent) == ended


def interrupted() -> SignalHandler:
    interrupts = SignalHandler()
    with interrupts.on_first_signal(lambda: None):
        interrupts.handle(2, None)
    return interrupts


def test_a_search_that_the_user_ended_is_killed(parent: ParentRun) -> None:
    with parent_run_lifecycle(parent, interrupted()):
        pass
    assert status(parent) == ("KILLED", "the user asked to end")


def test_what_fails_after_the_user_asked_to_end_is_killed(parent: ParentRun) -> None:
    with pytest.raises(RuntimeError, match="boom"), parent_run_lifecycle(parent, interrupted()):
        raise RuntimeError("boom")
    assert status(parent) == ("KILLED", "the user asked to end")


def test_a_signal_while_the_run_is_ended_does_not_leave_it_running(
    parent: ParentRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts = SignalHandler()
    end = ParentRun.end

    def end_with_a_signal(self: ParentRun, *arguments: str) -> None:
        interrupts.handle(2, None)
        end(self, *arguments)

    monkeypatch.setattr(ParentRun, "end", end_with_a_signal)
    with parent_run_lifecycle(parent, interrupts):
        pass
    assert status(parent)[0] == "FINISHED"


# --- the experiment ---


def test_an_experiment_is_made_once(client: MlflowClient) -> None:
    assert get_or_create_experiment(client, "pets") == get_or_create_experiment(client, "pets")


def test_an_experiment_that_two_searches_make_at_once_is_one(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_looked = threading.Barrier(2, timeout=10)
    look = client.get_experiment_by_name
    looks = threading.local()

    def look_together(name: str) -> Any:
        found = look(name)
        if not getattr(looks, "once", False):
            looks.once = True
            both_looked.wait()
        return found

    monkeypatch.setattr(client, "get_experiment_by_name", look_together)
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(get_or_create_experiment(client, "pets"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_deleted_experiment_is_a_mistake_that_can_be_mended(client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("pets"))
    with pytest.raises(TrackingError, match=r"experiment 'pets' is deleted in MLflow; restore it .* or give --name"):
        get_or_create_experiment(client, "pets")


# --- the store ---


def test_the_environments_store_is_the_one_that_is_used(tracking: str) -> None:
    assert tracking_uri() == tracking
    assert [found.name for found in connect().search_experiments()] == ["Default"]


def test_a_server_that_nobody_started_is_told_at_once(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port}")
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"must answer before a search starts, but http://me:\*\*\*@127") as raised:
        connect()
    assert time.monotonic() - began < 5
    assert "secret" not in str(raised.value)


class Refusing(BaseHTTPRequestHandler):
    """A server that is there and lets nobody in."""

    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(10)


def test_a_server_that_refuses_is_a_mistake(refusing_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", refusing_server)
    with pytest.raises(TrackingError, match=r"does not \(HTTPError\); start it, correct MLFLOW_TRACKING_URI"):
        connect()


def test_a_store_of_an_unknown_kind_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "carrier-pigeon://home")
    with pytest.raises(TrackingError, match="the tracking store carrier-pigeon://home must be usable"):
        connect()


def test_a_database_that_nobody_started_is_told_at_once(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slept_s: list[float] = []
    monkeypatch.setattr("mlflow.store.db.utils.time", SimpleNamespace(sleep=slept_s.append))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:secret@127.0.0.1:{closed_port}/mlflow")
    with pytest.raises(TrackingError, match="must") as raised:
        connect()
    assert "secret" not in str(raised.value)
    assert sum(slept_s) < 10


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@host:5000/x", "http://me:***@host:5000/x"),
        ("postgresql://me:se:c@ret@host/db", "postgresql://me:***@host/db"),
        ("http://secret:secret@secret/secret", "http://secret:***@secret/secret"),
        ("http://host:5000", "http://host:5000"),
        ("http://me@host", "http://me@host"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_a_password_is_hidden(uri: str, shown: str) -> None:
    assert hide_password(uri) == shown
