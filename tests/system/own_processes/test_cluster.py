"""A search on a Ray cluster of three local nodes, one of which is killed during a trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import TIMEOUT_S, SearchProcess, damage, wait_for_epochs
from tests.system import quick

NODES = 3


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a head node without CPUs and two nodes with one CPU each, in separate processes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    local_cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0})
    for _ in range(NODES - 1):
        local_cluster.add_node(num_cpus=1)
    yield local_cluster
    local_cluster.shutdown()


@pytest.mark.timeout(600)
def test_a_search_on_a_cluster_survives_the_loss_of_a_node_during_a_trial(cluster: Any, tmp_path: Path) -> None:
    search = SearchProcess(tmp_path, quick.MODULE)
    search.make_photos(30)
    process = search.tune(RAY_ADDRESS=cluster.address)
    wait_for_epochs(search, 8, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert process.wait(TIMEOUT_S) == 0, search.log.read_text()
    assert damage(search, 0.0)[:4] == (0, 0, 0, 0)
    assert {trial.status for trial in search.trials()} == {"complete"}
    log = search.log.read_text()
    assert "6 trials of up to 12 epochs" in log
    assert "2 trials in parallel" in log
