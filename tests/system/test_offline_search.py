"""A search whose MLflow is not there: it trains to its end, and sync delivers everything, once."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tests.system.conftest import World, runs_of, tune
from tuning.__main__ import main
from tuning.common.search_paths import SearchPaths

PLANTED = "planted-for-the-logs-of-ray"


def rays_logs() -> list[Path]:
    """Return the logs of this process's Ray."""
    folder = Path(ray._private.worker._global_node.get_logs_dir_path())
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert "raylet.out" in {path.name for path in found}
    return found


def test_a_search_without_a_server_ends_well_and_sync_delivers_all_of_it(
    ray_cluster: None, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        away.setenv("AWS_SECRET_ACCESS_KEY", PLANTED)
        assert tune(world, trials="2", tracking="offline") == 0
    assert not [path for path in rays_logs() if PLANTED.encode() in path.read_bytes()]
    printed = capsys.readouterr().out
    assert "operations for MLflow are in the outbox; run python -m tuning sync --run" in printed
    assert "Traceback" not in printed
    (paths,) = SearchPaths.all()
    assert main(["sync", "--run", paths.root.name]) == 0
    assert "models:/photos@champion is now version 1" in capsys.readouterr().out
    assert main(["sync"]) == 0, "a second time changes nothing"
    assert len(world.client.search_runs([world.client.get_experiment_by_name("photos").experiment_id])) == 3
    parent, children = runs_of(world.client)
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    for run in children:
        steps = [point.step for point in world.client.get_metric_history(run.info.run_id, "val_loss")]
        assert steps == list(range(1, len(steps) + 1))
        assert steps
    assert parent.data.tags["promotion"] == "champion"
    assert parent.data.tags["mlflow.note.content"].startswith("models:/photos@champion is now version 1")
    files = {file.path for file in world.client.list_artifacts(parent.info.run_id)}
    assert {"audit.json", "candidate.json", "environment.json", "test_scores.json"} <= files
    assert world.client.get_model_version_by_alias("photos", "champion").run_id == parent.info.run_id
