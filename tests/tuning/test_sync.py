"""``sync``: what searches left in their spools is delivered, once, to the run that it belongs to."""

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


def spooled(run_id: str | None = None, name: str = "pets") -> ParentRun:
    """Return a search without a server that has ended, with one trial."""
    parent = ParentRun.open(None, run_id, name)
    parent.writer.send(StartRun("uid0", "trial-000", {"lr": 0.1}, {}, time_ms=2))
    parent.writer.send(LogEpoch("uid0", 1, {"val_loss": 0.5}, time_ms=3))
    parent.writer.send(EndRun("uid0", "KILLED", {"reason": "stopped"}, time_ms=4))
    parent.log_text("so", "why.txt")
    parent.end("FINISHED")
    assert "are kept; python -m tuning sync --run" in parent.close()
    return parent


def runs(client: MlflowClient, name: str = "pets") -> tuple[list[str], list[str]]:
    """Return the parents and the children in an experiment, as ``NAME STATUS``."""
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    said = {run.info.run_id: f"{run.info.run_name} {run.info.status}" for run in found}
    below = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in found}
    assert {parent for parent in below.values() if parent} <= set(said)
    return [said[uid] for uid in said if not below[uid]], [said[uid] for uid in said if below[uid]]


def test_a_search_without_a_server_gets_its_runs(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = spooled()
    assert main(["sync", "--run", parent.run_id]) == 0
    assert runs(client) == (["pets FINISHED"], ["trial-000 KILLED"])
    assert "5 operations delivered" in capsys.readouterr().out


def test_sync_again_changes_nothing(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    spooled()
    assert main(["sync"]) == 0
    assert main(["sync"]) == 0
    assert "0 operations delivered" in capsys.readouterr().out
    assert runs(client) == (["pets FINISHED"], ["trial-000 KILLED"])


def test_the_search_is_known_by_its_run_too(client: MlflowClient) -> None:
    spooled()
    assert main(["sync"]) == 0
    (parent,) = client.search_runs(
        [client.get_experiment_by_name("pets").experiment_id], "tags.`freezeline.search_uid` != ''"
    )
    assert main(["sync", "--run", parent.info.run_id]) == 0


def test_a_run_that_mlflow_opened_is_gone_on_in(client: MlflowClient) -> None:
    opened = client.create_run(client.create_experiment("pets"), run_name="opened").info.run_id
    spooled(opened)
    assert main(["sync"]) == 0
    assert runs(client) == (["opened FINISHED"], ["trial-000 KILLED"])


def test_every_search_of_this_machine_is_delivered(client: MlflowClient) -> None:
    spooled(name="pets")
    spooled(name="digits")
    assert main(["sync"]) == 0
    assert runs(client, "digits")[0] == ["digits FINISHED"]
    assert runs(client, "pets")[0] == ["pets FINISHED"]


def test_a_search_that_goes_on_is_left_alone(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = ParentRun.open(client, None, "pets")
    assert main(["sync"]) == 1
    assert "not delivered: a search's spool is open in one process at a time" in capsys.readouterr().out
    assert parent.close() == ""


def test_a_server_that_does_not_have_the_run_is_a_mistake(
    client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    spooled("0" * 32)
    assert main(["sync"]) == 1
    assert "which is not there" in capsys.readouterr().out


def test_a_run_that_no_search_of_this_machine_has_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "--run", "nobody"]) == 2
    assert "set FREEZELINE_HOME to where the search ran" in capsys.readouterr().err


def test_nothing_to_deliver_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync"]) == 0
    assert "no search on this machine has anything to deliver" in capsys.readouterr().out


def test_what_is_refused_is_told_each_time(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    parent = ParentRun.open(None, None, "pets")
    parent.writer.send(LogEpoch("never started", 1, {"val_loss": 0.5}))
    parent.close()
    assert main(["sync"]) == 1
    assert "not delivered: epoch 1 of trial never started (KeyError)" in capsys.readouterr().out


def test_the_search_folder_says_where_its_runs_belong() -> None:
    parent = spooled()
    target = json.loads(SearchPaths.from_search_id(parent.run_id).target.read_text())
    assert (target["experiment"], target["search_id"], target["run_id"]) == ("pets", parent.run_id, "")
