"""A search without an MLflow server: it finishes, and sync delivers everything exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tests.system.conftest import Workspace, runs_of, tune
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths

MARKED_TEXT = "secret-not-for-the-logs-of-ray"


def ray_logs() -> list[Path]:
    """Return the log files of the current Ray session."""
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert "raylet.out" in {path.name for path in files}
    return files


def test_a_search_without_a_server_finishes_and_sync_delivers_everything(
    ray_cluster: None, quick_searches: None, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("AWS_SECRET_ACCESS_KEY", MARKED_TEXT)
        assert tune(workspace, trials="2", tracking="offline") == 0
    assert not [path for path in ray_logs() if MARKED_TEXT.encode() in path.read_bytes()]
    printed = capsys.readouterr().out
    assert "operations for MLflow are in the outbox; run freezeline sync" in printed
    assert "Traceback" not in printed
    (paths,) = SearchPaths.all()
    assert main(["sync", "--run", paths.root.name]) == 0
    assert "models:/photos@champion is now version 1" in capsys.readouterr().out
    assert main(["sync"]) == 0, "a repeated sync must change nothing"
    assert len(workspace.client.search_runs([workspace.client.get_experiment_by_name("photos").experiment_id])) == 3
    parent, children = runs_of(workspace.client)
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    for run in children:
        steps = [point.step for point in workspace.client.get_metric_history(run.info.run_id, "val_loss")]
        assert steps == list(range(1, len(steps) + 1))
        assert steps
    assert parent.info.run_name == f"photos 2 trials -> {parent.data.metrics['test_balanced_accuracy']:.3f} test"
    assert children[0].info.run_name.startswith("t000 test_efficientnet@32 ")
    assert len(workspace.client.get_metric_history(parent.info.run_id, "test_accuracy")) == 1
    (output,) = parent.outputs.model_outputs
    assert "test_accuracy" in {metric.key for metric in workspace.client.get_logged_model(output.model_id).metrics}
    assert parent.data.tags["promotion"] == "champion"
    assert parent.data.tags["mlflow.note.content"].startswith("models:/photos@champion is now version 1")
    files = {file.path for file in workspace.client.list_artifacts(parent.info.run_id)}
    assert {"audit.json", "internal", "environment.json", "test_scores.json"} <= files
    assert workspace.client.get_model_version_by_alias("photos", "champion").run_id == parent.info.run_id
