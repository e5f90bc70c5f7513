"""Queue of promotions: concurrent candidates are decided as if they had arrived one after another."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.errors import TrackingError
from tests.models.model_server import run_server
from tests.services import free_port
from tuning.registry.client import ModelRegistry
from tuning.registry.promotion_queue import TICKET, Turn

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def registry(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    monkeypatch.setattr("tuning.registry.promotion_queue.POLL_S", 0.02)
    model_registry = ModelRegistry(client, "pets")
    model_registry.create_if_missing()
    return model_registry


def new_turn(registry: ModelRegistry) -> Turn:
    run_id = registry.client.create_run("0").info.run_id
    return Turn.of_new(registry, f"/packages/{run_id}", run_id, "m-1")


def keeps_waiting(turn: Turn) -> bool:
    """Return whether a candidate is still waiting for its turn after about ten polls; its thread keeps running."""
    return not _ends(turn, within_s=0.3)


def gets_turn(turn: Turn) -> bool:
    """Return whether a turn's wait ends."""
    return _ends(turn, within_s=20)


def _ends(turn: Turn, within_s: float) -> bool:
    ended = threading.Event()

    def wait() -> None:
        turn.wait()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended.wait(within_s)


def test_a_version_waits_only_for_lower_versions(registry: ModelRegistry) -> None:
    first, second = new_turn(registry), new_turn(registry)
    assert (first.version, second.version) == (1, 2)
    assert gets_turn(first)
    assert keeps_waiting(second)
    with first:
        pass
    assert gets_turn(second)


def test_an_existing_version_queues_behind_waiting_versions_and_before_new_ones(registry: ModelRegistry) -> None:
    with new_turn(registry):
        pass
    waiting = new_turn(registry)
    repeated = Turn.of_known(registry, 1)
    later = new_turn(registry)
    assert gets_turn(waiting)
    assert keeps_waiting(repeated)
    assert keeps_waiting(later)
    with waiting:
        pass
    assert gets_turn(repeated)
    assert keeps_waiting(later)
    with repeated:
        pass
    assert gets_turn(later)


def test_all_others_wait_while_a_ticket_is_choosing_its_number(registry: ModelRegistry) -> None:
    with new_turn(registry):
        pass
    registry.set_tags(1, {f"{TICKET}other": "-1.0/0"})
    later = new_turn(registry)
    assert keeps_waiting(later)
    registry.delete_tag(1, f"{TICKET}other")
    assert gets_turn(later)


def test_a_ticket_without_a_heartbeat_is_passed_over_and_its_owner_gets_an_error(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.registry.promotion_queue.DEAD_S", 0.3)
    suspended, second = new_turn(registry), new_turn(registry)
    second.wait()
    second.check()
    tags = registry.tags(1)
    assert (tags["freezeline.gate"], tags["reason"]) == (
        "abandoned",
        "its promotion gave no sign of life for 0.3 s; run promote again",
    )
    with pytest.raises(TrackingError, match=r"version 1 of pets .* was passed over; run promote again"):
        suspended.check()


def test_a_slow_promotion_with_a_heartbeat_is_not_passed_over(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.registry.promotion_queue.DEAD_S", 0.8)
    monkeypatch.setattr("tuning.registry.promotion_queue.BEAT_S", 0.05)
    slow, second = new_turn(registry), new_turn(registry)
    with slow:
        started = time.monotonic()
        threading.Timer(2.0, lambda: slow.__exit__(None, None, None)).start()
        second.wait()
        assert time.monotonic() - started > 1.5
        registry.set_tags(1, {f"{TICKET}{slow._owner}": ""})  # the timer deleted it; leaving ``with`` deletes it again
    assert "freezeline.gate" not in registry.tags(1)


def test_a_version_is_not_created_twice_if_the_response_is_lost(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    create, created = registry.client.create_model_version, []

    def lose_the_response(*args: object, **kwargs: object) -> object:
        created.append(create(*args, **kwargs))  # type: ignore[arg-type]
        if len(created) == 1:
            raise MlflowException("database is locked")
        return created[-1]

    monkeypatch.setattr(registry.client, "create_model_version", lose_the_response)
    assert new_turn(registry).version == 1
    assert len(registry.versions()) == len(created) == 1


# --- concurrent processes ---

PROCESSES, THREADS = 4, 5  # few processes: each imports MLflow, which takes seconds
POLL_S = 0.25  # half the real one, to save time


def decide_all(uri: str, run_id: str, scores: list[float]) -> None:
    """Decide on one version per score concurrently, in this process."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(scores)) as pool:
        patch.setattr("tuning.registry.promotion_queue.POLL_S", POLL_S)
        list(pool.map(partial(decide, uri, run_id), scores))


def decide(uri: str, run_id: str, score: float) -> None:
    """Move the alias if the score is higher than the champion's, as a gate would; record the champion compared with."""
    from mlflow import MlflowClient

    registry = ModelRegistry(MlflowClient(uri), "pets")
    registry.create_if_missing()
    package = registry.client.create_logged_model("0", name="package")  # a server accepts no other source
    with Turn.of_new(registry, package.artifact_location, run_id, package.model_id) as turn:
        turn.wait()
        champion = registry.version_of_alias("champion")
        best = float(registry.tags(champion)["score"]) if champion else 0.0
        turn.check()
        registry.set_tags(turn.version, {"score": str(score), "compared_with": str(champion or "")})
        if score > best:
            registry.set_alias("champion", turn.version)


def decide_concurrently(registry: ModelRegistry, uri: str) -> None:
    scores = np.random.default_rng(0).permutation(PROCESSES * THREADS).reshape(PROCESSES, THREADS) + 1.0
    run_id = registry.client.create_run("0").info.run_id
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow"])
    processes = [context.Process(target=decide_all, args=(uri, run_id, row)) for row in scores.tolist()]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(240)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    finally:
        for process in processes:
            process.kill()
    assert_decided_in_order(registry, PROCESSES * THREADS)


def assert_decided_in_order(registry: ModelRegistry, count: int) -> None:
    """Check the recorded decisions against deciding one after another, in the order of the versions."""
    versions = registry.versions()
    assert [version.number for version in versions] == list(range(1, count + 1))
    champion, best = None, 0.0
    for version in versions:
        assert version.tags["compared_with"] == str(champion or "")
        if float(version.tags["score"]) > best:
            champion, best = version.number, float(version.tags["score"])
    assert registry.version_of_alias("champion") == champion
    assert not [name for version in versions for name in version.tags if name.startswith(TICKET)]


def test_twenty_concurrent_promotions_on_a_local_database_are_decided_in_order(
    registry: ModelRegistry, tracking: str
) -> None:
    decide_concurrently(registry, tracking)


def test_twenty_concurrent_promotions_on_a_server_are_decided_in_order(
    registry: ModelRegistry, tracking: str, tmp_path: Path
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "2", "--host", "127.0.0.1"]
    command += ["--port", uri.rpartition(":")[2], "--backend-store-uri", tracking]
    with run_server(command, f"{uri}/health", tmp_path, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        decide_concurrently(registry, uri)
