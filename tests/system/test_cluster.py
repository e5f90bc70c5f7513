"""The same command on a Ray cluster: three nodes on this machine, one of them killed in mid-trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults import LONGEST_S, Searched, damage, wait_for_epochs

NODES = 3


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores and two nodes with one each, ended by their own processes."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0})
    for _ in range(NODES - 1):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.mark.timeout(600)
def test_a_search_on_a_cluster_survives_the_loss_of_a_node_in_mid_trial(cluster: Any, tmp_path: Path) -> None:
    searched = Searched(tmp_path)
    searched.make_photos(30)
    process = searched.tune(RAY_ADDRESS=cluster.address)
    wait_for_epochs(searched, 8, process)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert process.wait(LONGEST_S) == 0, searched.log.read_text()
    assert damage(searched, 0.0)[:4] == (0, 0, 0, 0)
    assert {result.status for result in searched.results()} == {"complete"}
    assert "6 trials of up to 12 epochs, 2 at once" in searched.log.read_text()
