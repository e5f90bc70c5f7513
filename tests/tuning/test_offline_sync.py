"""``sync``: pending operations of earlier searches are delivered once, to the right parent run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths
from tuning.tracking.operations import EndRun, LogEpoch, StartRun
from tuning.tracking.parent_run import ParentRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("tracking", "no_pauses")


def offline_search(run_id: str | None = None, name: str = "pets") -> ParentRun:
    """Return the parent run of a finished offline search with one trial."""
    parent = ParentRun.open(None, run_id, name)
    parent.writer.send(StartRun("uid0", "trial-000", {"lr": 0.1}, {}, time_ms=2))
    parent.writer.send(LogEpoch("uid0", 1, {"val_loss": 0.5}, time_ms=3))
    parent.writer.send(EndRun("uid0", "KILLED", {"reason": "stopped"}, time_ms=4))
    parent.log_text("so", "why.txt")
    parent.end("FINISHED")
    assert "operations for MLflow are in the outbox; run freezeline sync" in parent.close()
    return parent


def runs_of(client: MlflowClient, name: str = "pets") -> tuple[list[str], list[str]]:
    """Return the parent runs and the child runs of an experiment, as ``NAME STATUS``."""
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    texts = {run.info.run_id: f"{run.info.run_name} {run.info.status}" for run in runs}
    parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
    assert {parent for parent in parents.values() if parent} <= set(texts)
    return [texts[uid] for uid in texts if not parents[uid]], [texts[uid] for uid in texts if parents[uid]]


def test_an_offline_search_gets_its_runs(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = offline_search()
    assert main(["sync", "--run", parent.run_id]) == 0
    assert runs_of(client) == (["pets FINISHED"], ["trial-000 KILLED"])
    assert "5 operations delivered" in capsys.readouterr().out


def test_a_second_sync_changes_nothing(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    offline_search()
    assert main(["sync"]) == 0
    assert main(["sync"]) == 0
    assert "0 operations delivered" in capsys.readouterr().out
    assert runs_of(client) == (["pets FINISHED"], ["trial-000 KILLED"])


def test_a_synced_search_is_also_found_by_its_run_id(client: MlflowClient) -> None:
    offline_search()
    assert main(["sync"]) == 0
    (parent,) = client.search_runs(
        [client.get_experiment_by_name("pets").experiment_id], "tags.`freezeline.search_uid` != ''"
    )
    assert main(["sync", "--run", parent.info.run_id]) == 0


def test_a_run_that_mlflow_run_created_is_continued(client: MlflowClient) -> None:
    run_id = client.create_run(client.create_experiment("pets"), run_name="opened").info.run_id
    offline_search(run_id)
    assert main(["sync"]) == 0
    assert runs_of(client) == (["opened FINISHED"], ["trial-000 KILLED"])


def test_every_search_on_this_machine_is_delivered(client: MlflowClient) -> None:
    offline_search(name="pets")
    offline_search(name="digits")
    assert main(["sync"]) == 0
    assert runs_of(client, "digits")[0] == ["digits FINISHED"]
    assert runs_of(client, "pets")[0] == ["pets FINISHED"]


def test_a_running_search_is_not_synced(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = ParentRun.open(client, None, "pets")
    assert main(["sync"]) == 1
    assert "not delivered: an outbox can be open in one process only" in capsys.readouterr().out
    assert parent.close() == ""


def test_a_server_without_the_run_is_an_error(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    offline_search("0" * 32)
    assert main(["sync"]) == 1
    assert "must exist in the current tracking store" in capsys.readouterr().out


def test_a_run_of_no_search_on_this_machine_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "--run", "unknown"]) == 2
    assert "set FREEZELINE_HOME to the value that the search used" in capsys.readouterr().err


def test_sync_without_a_search_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync"]) == 0
    assert "no search on this machine has anything to deliver" in capsys.readouterr().out


def test_a_rejected_operation_is_reported_at_each_sync(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = ParentRun.open(None, None, "pets")
    parent.writer.send(LogEpoch("never started", 1, {"val_loss": 0.5}))
    parent.close()
    assert main(["sync"]) == 1
    assert "not delivered: epoch 1 of trial never started (KeyError)" in capsys.readouterr().out


def test_the_search_folder_stores_the_target_of_the_outbox() -> None:
    parent = offline_search()
    target = json.loads(SearchPaths.from_search_id(parent.run_id).target.read_text())
    assert (target["experiment"], target["search_id"], target["run_id"]) == ("pets", parent.run_id, "")
