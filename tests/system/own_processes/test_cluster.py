"""A search on a Ray cluster of local nodes with and without a GPU, one of which is killed during a trial."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import TIMEOUT_S, SearchProcess, damage, wait_for_epochs
from tests.system import quick
from tests.system.own_processes.environments import environment_without_our_code

CHECK = "import importlib.util as u; assert u.find_spec('ray') and not u.find_spec('tuning')"


@pytest.fixture
def cluster_and_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """Start a head node without CPUs, and three nodes with one CPU each, whose Python cannot import our code.

    The first two have a GPU, which Ray only counts. Yield the cluster and one of them.
    """
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = environment_without_our_code(tmp_path / "environment")
    subprocess.run([python, "-c", CHECK], cwd=tmp_path, check=True)
    local_cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0})
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))  # Ray starts a node's processes with it
        nodes = [local_cluster.add_node(num_cpus=1, num_gpus=num_gpus) for num_gpus in (1, 1, 0)]
    yield local_cluster, nodes[0]
    local_cluster.shutdown()


@pytest.mark.timeout(600)
def test_a_search_on_a_cluster_survives_the_loss_of_a_node_during_a_trial(
    cluster_and_node: tuple[Any, Any], tmp_path: Path
) -> None:
    cluster, node_with_gpu = cluster_and_node
    search = SearchProcess(tmp_path, quick.MODULE, num_trials=4, max_epochs=5)
    search.make_photos(30)
    process = search.tune(RAY_ADDRESS=cluster.address, FREEZELINE_CACHE=str(tmp_path / "cache"))
    wait_for_epochs(search, 4, process)  # fewer than those of one trial
    cluster.remove_node(node_with_gpu, allow_graceful=False)
    assert process.wait(TIMEOUT_S) == 0, search.log.read_text()
    assert damage(search, 0.0)[:4] == (0, 0, 0, 0)
    assert {trial.status for trial in search.trials()} == {"complete"}
    log = search.log.read_text()
    assert "4 trials of up to 5 epochs" in log
    assert "GPU, 2 trials in parallel" in log  # none on the node without one
