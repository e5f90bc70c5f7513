"""Whose turn it is: candidates that come at once are decided as if one had come after the other."""

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
from server.processes import free_port
from tests.models.model_server import run_server
from tuning.registry.client import ModelRegistry
from tuning.registry.promotion_queue import TICKET, Turn

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def versions(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    monkeypatch.setattr("tuning.registry.promotion_queue.POLL_S", 0.02)
    found = ModelRegistry(client, "pets")
    found.create_if_missing()
    return found


def new(versions: ModelRegistry) -> Turn:
    run_id = versions.client.create_run("0").info.run_id
    return Turn.of_new(versions, f"/packages/{run_id}", run_id, "m-1")


def waits(turn: Turn) -> bool:
    """Tell whether a turn waits although it had time enough to look ten times, and let it go."""
    return not _ends(turn, within_s=0.3)


def comes(turn: Turn) -> bool:
    """Tell whether a turn's wait ends."""
    return _ends(turn, within_s=20)


def _ends(turn: Turn, within_s: float) -> bool:
    ended = threading.Event()

    def wait() -> None:
        turn.wait()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended.wait(within_s)


def test_a_version_waits_for_lower_ones_only(versions: ModelRegistry) -> None:
    first, second = new(versions), new(versions)
    assert (first.version, second.version) == (1, 2)
    assert comes(first)
    assert waits(second)
    with first:
        pass
    assert comes(second)


def test_one_that_is_decided_again_comes_behind_all_that_wait_and_before_all_that_come(versions: ModelRegistry) -> None:
    with new(versions):
        pass
    waiting = new(versions)
    again = Turn.of_known(versions, 1)
    later = new(versions)
    assert comes(waiting)
    assert waits(again)
    assert waits(later)
    with waiting:
        pass
    assert comes(again)
    assert waits(later)
    with again:
        pass
    assert comes(later)


def test_all_wait_while_someone_looks_for_a_number(versions: ModelRegistry) -> None:
    with new(versions):
        pass
    versions.set_tags(1, {f"{TICKET}other": "-1.0/0"})
    later = new(versions)
    assert waits(later)
    versions.delete_tag(1, f"{TICKET}other")
    assert comes(later)


def test_whoever_shows_no_life_is_passed_over_and_finds_out(
    versions: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.registry.promotion_queue.DEAD_S", 0.3)
    asleep, second = new(versions), new(versions)
    second.wait()
    second.check()
    tags = versions.tags(1)
    assert (tags["freezeline.gate"], tags["reason"]) == (
        "abandoned",
        "whoever decided about it showed no life for 0.3 s",
    )
    with pytest.raises(TrackingError, match=r"version 1 of pets .* was passed over; run promote again"):
        asleep.check()


def test_whoever_shows_life_is_not_passed_over(versions: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.registry.promotion_queue.DEAD_S", 0.8)
    monkeypatch.setattr("tuning.registry.promotion_queue.BEAT_S", 0.05)
    slow, second = new(versions), new(versions)
    with slow:
        started = time.monotonic()
        threading.Timer(2.0, lambda: slow.__exit__(None, None, None)).start()
        second.wait()
        assert time.monotonic() - started > 1.5
        versions.set_tags(
            1, {f"{TICKET}{slow._owner}": ""}
        )  # it was taken off already; within ``with`` it is once more
    assert "freezeline.gate" not in versions.tags(1)


def test_a_version_that_was_made_though_the_answer_was_lost_is_not_made_again(
    versions: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    make, made = versions.client.create_model_version, []

    def lose_the_answer(*arguments: object, **options: object) -> object:
        made.append(make(*arguments, **options))  # type: ignore[arg-type]
        if len(made) == 1:
            raise MlflowException("database is locked")
        return made[-1]

    monkeypatch.setattr(versions.client, "create_model_version", lose_the_answer)
    assert new(versions).version == 1
    assert len(versions.versions()) == len(made) == 1


# --- many processes at once ---

PROCESSES, THREADS = 4, 5  # each process imports MLflow, which takes seconds
POLL_S = 0.25  # tells of order what half a second does


def decide_all(uri: str, run_id: str, scores: list[float]) -> None:
    """Decide at once about a version for each score, in a process of its own."""
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(scores)) as pool:
        patch.setattr("tuning.registry.promotion_queue.POLL_S", POLL_S)
        list(pool.map(partial(decide, uri, run_id), scores))


def decide(uri: str, run_id: str, score: float) -> None:
    """Take the alias if the score is higher than the champion's, as a gate would, and say whom it saw."""
    from mlflow import MlflowClient

    versions = ModelRegistry(MlflowClient(uri), "pets")
    versions.create_if_missing()
    package = versions.client.create_logged_model("0", name="package")  # a server takes no version of another source
    with Turn.of_new(versions, package.artifact_location, run_id, package.model_id) as turn:
        turn.wait()
        holder = versions.version_of_alias("champion")
        best = float(versions.tags(holder)["score"]) if holder else 0.0
        turn.check()
        versions.set_tags(turn.version, {"score": str(score), "against": str(holder or "")})
        if score > best:
            versions.set_alias("champion", turn.version)


def decide_at_once(versions: ModelRegistry, uri: str) -> None:
    scores = np.random.default_rng(0).permutation(PROCESSES * THREADS).reshape(PROCESSES, THREADS) + 1.0
    run_id = versions.client.create_run("0").info.run_id
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["mlflow"])
    processes = [forking.Process(target=decide_all, args=(uri, run_id, row)) for row in scores.tolist()]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(240)
        assert [process.exitcode for process in processes] == [0] * PROCESSES
    finally:
        for process in processes:
            process.kill()
    assert_decided_in_order(versions, PROCESSES * THREADS)


def assert_decided_in_order(versions: ModelRegistry, count: int) -> None:
    """Deciding one after another, in the order of the versions, must have seen and left the same."""
    found = versions.versions()
    assert [version.number for version in found] == list(range(1, count + 1))
    champion, best = None, 0.0
    for version in found:
        assert version.tags["against"] == str(champion or "")
        if float(version.tags["score"]) > best:
            champion, best = version.number, float(version.tags["score"])
    assert versions.version_of_alias("champion") == champion
    assert not [name for version in found for name in version.tags if name.startswith(TICKET)]


def test_twenty_at_once_on_a_local_database_end_as_one_after_another(versions: ModelRegistry, tracking: str) -> None:
    decide_at_once(versions, tracking)


def test_twenty_at_once_on_a_server_end_as_one_after_another(
    versions: ModelRegistry, tracking: str, tmp_path: Path
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "2", "--host", "127.0.0.1"]
    command += ["--port", uri.rpartition(":")[2], "--backend-store-uri", tracking]
    with run_server(command, f"{uri}/health", tmp_path, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"):
        decide_at_once(versions, uri)
