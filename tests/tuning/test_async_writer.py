"""The one writer, against a real tracking database: all arrives, once, in order; what fails is told, not raised."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.factories import epoch_report, trial_record
from tuning.common.names import OBJECTIVE_METRIC
from tuning.common.trial_record import TrialRecord, TrialReport
from tuning.tracking.async_writer import MAX_RETRIES, AsyncWriter, QueuedOperation, batches
from tuning.tracking.environment import REPOSITORY
from tuning.tracking.mlflow_sink import find_run, to_params
from tuning.tracking.operations import EndRun, LogEpoch, LogFile, LogText, Operation, StartRun
from tuning.tracking.trial_logger import TrialLogger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.usefixtures("no_pauses")

EXPERIMENT = "0"
PARENT = {"mlflow.parentRunId": "parent"}
SPOOL = Path("spool.jsonl")  # in the test's own folder


class Flaky:
    """A client whose calls of one name fail: the first few, or those whose arguments ``fails`` picks."""

    def __init__(self, client: MlflowClient, name: str, fails: Callable[[int, tuple[Any, ...]], bool]) -> None:
        self._client = client
        self._name = name
        self._fails = fails
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name != self._name:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(arguments)
            if self._fails(len(self.calls), arguments):
                raise ConnectionError("the server is away")
            return real(*arguments, **named)

        return call


def writer_of(client: MlflowClient | Flaky | None, spool: Path = SPOOL) -> AsyncWriter:
    """Return a writer on the test's own spool; an earlier one must be closed."""
    return AsyncWriter(client, EXPERIMENT, PARENT, spool)  # type: ignore[arg-type]


def deliver(client: MlflowClient | Flaky, *operations: Operation) -> tuple[str, ...]:
    """Send all through a writer of its own and return what could not be delivered."""
    writer = writer_of(client)
    for operation in operations:
        writer.send(operation)
    return writer.close()


def start(uid: str = "uid0", **params: object) -> StartRun:
    return StartRun(uid, f"trial-{uid}", params, {"trial_config": "{}"}, time_ms=1_000)


def points(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float, int]]:
    history = client.get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value, point.timestamp) for point in history)


def only_run(client: MlflowClient) -> Run:
    (run,) = client.search_runs([EXPERIMENT])
    return run


def test_all_points_arrive_once_with_their_steps_and_times(client: MlflowClient) -> None:
    epochs = [LogEpoch("uid0", step, {"loss": 1 / step, "lr": 0.1}, time_ms=1_000 * step) for step in range(1, 31)]
    assert deliver(client, start(), *epochs) == ()
    run = only_run(client)
    assert points(client, run, "loss") == [(step, 1 / step, 1_000 * step) for step in range(1, 31)]
    assert len(points(client, run, "lr")) == 30


def test_a_run_has_its_name_parameters_tags_and_times(client: MlflowClient) -> None:
    end = EndRun("uid0", "KILLED", {"reason": "stopped", "empty": ""}, time_ms=9_000)
    assert deliver(client, start(lr=1e-3, optimizer="adam"), end) == ()
    run = only_run(client)
    assert run.info.run_name == "trial-uid0"
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("KILLED", 1_000, 9_000)
    assert run.data.params == {"lr": "0.001", "optimizer": "adam"}
    wanted = {**PARENT, "trial_uid": "uid0", "trial_config": "{}", "reason": "stopped", "empty": ""}
    assert wanted.items() <= run.data.tags.items()


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED"])
def test_a_run_ends_with_the_status_it_is_given(client: MlflowClient, status: str) -> None:
    deliver(client, start(), EndRun("uid0", status, {}))
    assert only_run(client).info.status == status


def test_parameters_that_come_with_an_epoch_are_logged(client: MlflowClient) -> None:
    deliver(client, start(lr=0.1), LogEpoch("uid0", 1, {"loss": 0.5}, {"blocks": 18}))
    assert only_run(client).data.params == {"lr": "0.1", "blocks": "18"}


def test_starting_a_run_again_finds_the_one_that_is_there(client: MlflowClient) -> None:
    for step in (1, 2):  # the second writer is that of a search that was started again
        assert deliver(client, start(lr=0.1), LogEpoch("uid0", step, {"loss": 0.5}, time_ms=step)) == ()
    assert points(client, only_run(client), "loss") == [(1, 0.5, 1), (2, 0.5, 2)]


def test_an_epoch_that_is_sent_again_is_the_same_point(client: MlflowClient) -> None:
    again = LogEpoch("uid0", 1, {"loss": 0.5, "bad": float("nan")}, time_ms=7)
    assert deliver(client, start(), again, again) == ()
    assert deliver(client, start(), again) == ()
    assert points(client, only_run(client), "loss") == [(1, 0.5, 7)]


def test_what_is_infinite_is_left_out_and_the_rest_arrives(client: MlflowClient) -> None:
    deliver(client, start(), LogEpoch("uid0", 1, {"loss": float("inf"), "accuracy": 0.5}))
    assert only_run(client).data.metrics == {"accuracy": 0.5}


def test_more_points_than_one_call_takes_arrive(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.tracking.mlflow_sink.METRICS_PER_CALL", 7)
    assert deliver(client, start(), LogEpoch("uid0", 1, {f"m{i}": float(i) for i in range(20)})) == ()
    assert only_run(client).data.metrics == {f"m{i}": float(i) for i in range(20)}


def test_a_long_parameter_is_cut_to_what_mlflow_takes(client: MlflowClient) -> None:
    assert deliver(client, start(long="x" * 7000)) == ()
    assert only_run(client).data.params == {"long": "x" * 6000}
    assert to_params({"a": 1, "b": None}) == [("a", "1"), ("b", "None")]


def test_trials_at_once_each_get_their_own(client: MlflowClient) -> None:
    uids = ("a", "b", "c")
    writer = writer_of(client)
    for uid in uids:
        writer.send(start(uid))
    for step in (1, 2, 3):
        for at, uid in enumerate(uids):
            writer.send(LogEpoch(uid, step, {"loss": float(at)}, time_ms=step))
    writer.send(EndRun("b", "FAILED", {}))
    assert writer.close() == ()
    assert set(writer.run_ids()) == set(uids)
    for at, uid in enumerate(uids):
        run = client.get_run(writer.run_ids()[uid])
        assert points(client, run, "loss") == [(step, float(at), step) for step in (1, 2, 3)]
        assert run.info.status == ("FAILED" if uid == "b" else "RUNNING")


def test_a_call_that_fails_is_tried_again(client: MlflowClient) -> None:
    flaky = Flaky(client, "create_run", lambda call, _: call <= 3)
    assert deliver(flaky, start(), LogEpoch("uid0", 1, {"loss": 0.5}, time_ms=7)) == ()
    assert len(flaky.calls) == 4
    assert points(client, only_run(client), "loss") == [(1, 0.5, 7)]


def test_a_call_that_fails_after_it_was_carried_out_makes_nothing_twice(client: MlflowClient) -> None:
    flaky = Flaky(client, "log_batch", lambda call, _: call == 1)
    assert deliver(flaky, start(lr=0.1)) == ()
    assert only_run(client).data.params == {"lr": "0.1"}


def test_a_run_that_was_made_though_the_answer_was_lost_is_found_again(client: MlflowClient) -> None:
    class Deaf(Flaky):
        def __getattr__(self, name: str) -> Any:
            real = getattr(self._client, name)

            def call(*arguments: Any, **named: Any) -> Any:
                done = real(*arguments, **named)
                self.calls.append(arguments)
                if name == "create_run" and len(self.calls) == 1:
                    raise ConnectionError("the answer was lost")
                return done

            return call

    assert deliver(Deaf(client, "", lambda *_: False), start(lr=0.1), EndRun("uid0", "FINISHED", {})) == ()
    assert only_run(client).data.params == {"lr": "0.1"}
    assert only_run(client).info.status == "FINISHED"


def test_what_cannot_be_delivered_is_told_and_not_raised(client: MlflowClient) -> None:
    flaky = Flaky(client, "set_terminated", lambda *_: True)
    assert deliver(flaky, start(), EndRun("uid0", "FINISHED", {})) == ("EndRun of trial uid0 (ConnectionError)",)
    assert len(flaky.calls) >= MAX_RETRIES


def test_one_trial_that_fails_does_not_hold_up_another(client: MlflowClient) -> None:
    writer = writer_of(client)
    writer.send(LogEpoch("never started", 1, {"loss": 0.5}))
    writer.send(start())
    writer.send(EndRun("uid0", "FINISHED", {}))
    assert [sentence.split(" (")[0] for sentence in writer.close()] == ["epoch 1 of trial never started"]
    assert only_run(client).info.status == "FINISHED"


def gated(client: MlflowClient, *later: Operation) -> tuple[tuple[str, ...], Flaky]:
    """Queue ``later`` while the run is being made, so that all of it is one batch; return what was not delivered."""
    gate = threading.Event()
    flaky = Flaky(client, "log_batch", lambda *_: not gate.wait(10))
    writer = writer_of(flaky)
    writer.send(start(lr=0.1))
    for operation in later:
        writer.send(operation)
    gate.set()
    return writer.close(), flaky


def test_epochs_that_wait_are_sent_in_one_call(client: MlflowClient) -> None:
    epochs = [LogEpoch("uid0", step, {"loss": 0.5}, time_ms=step) for step in range(1, 21)]
    undelivered, flaky = gated(client, *epochs)
    assert undelivered == ()
    assert len(flaky.calls) <= 3  # the parameters, perhaps the first epochs, the rest
    assert len(points(client, only_run(client), "loss")) == 20


def test_to_send_never_waits(client: MlflowClient) -> None:
    gate = threading.Event()
    writer = writer_of(Flaky(client, "create_run", lambda *_: not gate.wait(30)))
    for operation in (start(), EndRun("uid0", "FINISHED", {})):
        writer.send(operation)
    assert writer.run_ids() == {}, "the writer is held up by the server, the search is not"
    gate.set()
    assert writer.close() == ()


def test_each_operation_that_is_lost_is_told(client: MlflowClient) -> None:
    gate = threading.Event()
    writer = writer_of(Flaky(client, "create_run", lambda *_: gate.wait(10)))
    for operation in (start(), *(LogEpoch("uid0", step, {"loss": 0.5}) for step in (1, 2, 3))):
        writer.send(operation)
    gate.set()
    assert len(writer.close()) == 4


# --- the spool ---


def away(client: MlflowClient) -> Flaky:
    """Return a client of a server that answers nothing."""

    class Away(Flaky):
        def __getattr__(self, name: str) -> Any:
            def call(*_: Any, **__: Any) -> Any:
                raise ConnectionError("the server is away")

            return call

    return Away(client, "", lambda *_: True)


def test_what_a_server_that_is_away_did_not_take_the_next_writer_delivers_in_order(client: MlflowClient) -> None:
    epochs = [LogEpoch("uid0", step, {"loss": 1 / step}, {"blocks": 18}, time_ms=step) for step in (1, 2, 3)]
    sent = [start(lr=0.1), *epochs, EndRun("uid0", "FINISHED", {"reason": "done"}, time_ms=9)]
    assert len(deliver(away(client), *sent)) == 5
    assert client.search_runs([EXPERIMENT]) == []
    assert deliver(client) == ()
    run = only_run(client)
    assert points(client, run, "loss") == [(step, 1 / step, step) for step in (1, 2, 3)]
    assert (run.info.status, run.info.end_time, run.data.params) == ("FINISHED", 9, {"lr": "0.1", "blocks": "18"})


def test_what_was_delivered_is_not_sent_again(client: MlflowClient) -> None:
    deliver(client, start(), LogEpoch("uid0", 1, {"loss": 0.5}))
    counting = Flaky(client, "log_batch", lambda *_: False)
    assert deliver(counting) == ()
    assert counting.calls == []


def test_a_server_that_comes_back_while_the_search_goes_on_gets_everything(client: MlflowClient) -> None:
    flaky = Flaky(client, "create_run", lambda call, _: call <= 3 * MAX_RETRIES)
    writer = writer_of(flaky)
    writer.send(start())
    writer.send(LogEpoch("uid0", 1, {"loss": 0.5}, time_ms=7))
    ends = time.monotonic() + 20
    while len(flaky.calls) <= 3 * MAX_RETRIES and time.monotonic() < ends:
        time.sleep(0.01)
    assert writer.close() == ()
    assert points(client, only_run(client), "loss") == [(1, 0.5, 7)]


def test_a_later_process_goes_on_in_the_run_of_a_trial(client: MlflowClient) -> None:
    deliver(client, start(lr=0.1), EndRun("uid0", "KILLED", {"reason": "stopped"}))
    writer = writer_of(client)
    assert writer.run_ids() == {"uid0": only_run(client).info.run_id}
    writer.send(start(lr=0.1))
    assert writer.flush() == ()
    assert only_run(client).info.status == "RUNNING"
    writer.send(LogEpoch("uid0", 2, {"loss": 0.5}, time_ms=2))
    assert writer.close() == ()
    assert points(client, only_run(client), "loss") == [(2, 0.5, 2)]


def test_an_epoch_of_a_later_process_needs_no_new_start(client: MlflowClient) -> None:
    deliver(client, start(lr=0.1))
    assert deliver(client, LogEpoch("uid0", 2, {"loss": 0.5}, time_ms=2)) == ()
    assert points(client, only_run(client), "loss") == [(2, 0.5, 2)]


def test_what_the_server_refuses_for_good_holds_nothing_up_and_is_told(client: MlflowClient) -> None:
    sent = [start(lr=0.1), LogEpoch("uid0", 1, {}, {"lr": 0.2}), EndRun("uid0", "FINISHED", {})]
    assert deliver(client, *sent) == ("epoch 1 of trial uid0 (MlflowException)",)
    assert only_run(client).info.status == "FINISHED"


def test_of_a_batch_only_what_is_refused_is_set_aside(client: MlflowClient) -> None:
    bad = LogEpoch("uid0", 2, {"no\nname": 0.5}, time_ms=2)
    good = [LogEpoch("uid0", step, {"loss": 0.5}, time_ms=step) for step in (1, 3)]
    undelivered, _ = gated(client, good[0], bad, good[1])
    assert undelivered == ("epoch 2 of trial uid0 (MlflowException)",)
    assert [step for step, _, _ in points(client, only_run(client), "loss")] == [1, 3]


def test_artifacts_go_the_same_way_beside_what_a_run_is_told(client: MlflowClient, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>")
    flaky = Flaky(client, "log_artifact", lambda *_: True)
    sent = [
        start(),
        LogFile("uid0", str(report), "pages"),
        LogText("uid0", "why.txt", "so"),
        EndRun("uid0", "FAILED", {}),
    ]
    assert len(deliver(flaky, *sent)) == 2, "a text waits for the file before it"
    assert only_run(client).info.status == "FAILED", "its end waits for no file"
    assert deliver(client) == ()
    run_id = only_run(client).info.run_id
    assert {file.path for file in client.list_artifacts(run_id)} == {"pages", "why.txt"}
    assert [file.path for file in client.list_artifacts(run_id, "pages")] == ["pages/report.html"]


def test_a_writer_without_a_server_keeps_all_for_later(client: MlflowClient) -> None:
    writer = writer_of(None)
    writer.send(start())
    writer.send(EndRun("uid0", "FINISHED", {}))
    assert writer.close() == ()
    assert writer.pending_count == 2
    assert deliver(client) == ()
    assert only_run(client).info.status == "FINISHED"


def test_a_disk_that_is_full_costs_no_point_while_the_server_is_there(client: MlflowClient, small_disk: Path) -> None:
    fill(small_disk)
    writer = writer_of(client, small_disk / "spool.jsonl")
    writer.send(start())
    for step in range(1, 201):
        writer.send(LogEpoch("uid0", step, {"loss": 1 / step}, time_ms=step))
    assert writer.close() == ()
    assert points(client, only_run(client), "loss") == [(step, 1 / step, step) for step in range(1, 201)]


def test_what_neither_disk_nor_server_takes_is_told_as_lost(client: MlflowClient, small_disk: Path) -> None:
    fill(small_disk)
    writer = writer_of(away(client), small_disk / "spool.jsonl")
    writer.send(start())
    assert writer.close() == ("StartRun of trial uid0 (ConnectionError, and the disk has no place to keep it)",)


def test_what_a_disk_could_not_take_is_kept_once_it_can(client: MlflowClient, small_disk: Path) -> None:
    filler = fill(small_disk)
    writer = writer_of(away(client), small_disk / "spool.jsonl")
    writer.send(start())
    filler.unlink()
    assert len(writer.close()) == 1
    rest = writer_of(client, small_disk / "spool.jsonl")
    assert rest.close() == ()
    assert only_run(client).info.run_name == "trial-uid0"


def fill(folder: Path) -> Path:
    """Fill a small disk to its last byte; return the file that does."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    return path


KILLED = """
import os, signal, sys, pathlib
from tuning.tracking.operations import LogEpoch, StartRun
from tuning.tracking.async_writer import Writer
writer = Writer(None, "", {}, pathlib.Path(sys.argv[1]))
writer.send(StartRun("uid0", "trial-uid0", {}, {}, time_ms=1))
for step in range(1, 101):
    writer.send(LogEpoch("uid0", step, {"loss": 1 / step}, time_ms=step))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_driver_that_is_killed_right_after_it_sent_loses_nothing(client: MlflowClient) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(SPOOL.absolute())], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert deliver(client) == ()
    assert points(client, only_run(client), "loss") == [(step, 1 / step, step) for step in range(1, 101)]


# --- batches ---

operations = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "epoch", "end"])).map(
        lambda drawn: {
            "start": StartRun(drawn[0], "", {}, {}),
            "epoch": LogEpoch(drawn[0], 1, {}),
            "end": EndRun(drawn[0], "FINISHED", {}),
        }[drawn[1]]
    ),
    max_size=20,
)


@given(operations)
def test_batches_keep_every_operation_and_each_trials_order(sent: list[Operation]) -> None:
    gathered = [[one.operation for one in batch] for batch in batches(map(QueuedOperation, range(len(sent)), sent))]
    flat = [operation for batch in gathered for operation in batch]
    assert len(flat) == len(sent)
    for uid in "abc":
        ours = [id(operation) for operation in flat if operation.trial_uid == uid]
        assert ours == [id(operation) for operation in sent if operation.trial_uid == uid]
    for batch in gathered:
        assert len(batch) == 1 or {type(operation) for operation in batch} == {LogEpoch}
        assert len({operation.trial_uid for operation in batch}) == 1


def test_epochs_of_one_trial_are_gathered_around_those_of_others() -> None:
    sent = [LogEpoch(uid, step, {}) for step in (1, 2) for uid in "ab"]
    gathered = [[one.offset for one in batch] for batch in batches(map(QueuedOperation, range(4), sent))]
    assert gathered == [[0, 2], [1, 3]]


# --- what the trials' runs hold ---


def heard(client: MlflowClient, *events: Callable[[TrialLogger], None]) -> Run:
    """Return the run that a listener makes of the events."""
    writer = writer_of(client)
    runs = TrialLogger(writer)
    for event in events:
        event(runs)
    assert writer.close() == ()
    return only_run(client)


@pytest.mark.parametrize(
    ("status", "in_mlflow"),
    [("complete", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED"), ("running", "KILLED")],
)
def test_a_trials_status_is_told_in_mlflows_words(client: MlflowClient, status: Any, in_mlflow: str) -> None:
    ended = trial_record(status=status, reason="because")
    run = heard(client, lambda runs: runs.on_trial_start(ended), lambda runs: runs.on_trial_end(ended, None))
    assert (run.info.status, run.data.tags["reason"]) == (in_mlflow, "because")


def fresh(result: TrialRecord) -> TrialRecord:
    """Return a trial as it was before its first epoch."""
    return result.model_copy(update={"history": (), "runtime_info": {}, "status": "running"})


def test_what_a_killed_process_did_not_tell_is_told_once(client: MlflowClient) -> None:
    """It wrote down that trials 1 and 5 began and their first epoch, nothing of trials 2 and 4, and trial 3 whole."""
    one, two, three, new = trial_record(1), trial_record(2), trial_record(3), trial_record(4, None, "running")
    goes_on = trial_record(5, 0.5, "running")
    writer = writer_of(client)
    runs = TrialLogger(writer)
    runs.on_trial_start(fresh(one))
    runs.on_epoch_end(one, epoch_report(1, 0.45))
    runs.on_trial_start(fresh(goes_on))
    runs.on_epoch_end(goes_on, epoch_report(1, 0.45))
    runs.on_trial_start(fresh(three))
    for number, metrics in enumerate(three.history, start=1):
        runs.on_epoch_end(three, epoch_report(number, metrics[OBJECTIVE_METRIC]))
    runs.on_trial_end(three, None)
    writer.close()
    again = writer_of(client)
    TrialLogger(again).replay_missing([one, two, three, new, goes_on])
    again.close()
    stored = client.search_runs([EXPERIMENT])
    assert sorted((run.data.params["trial"], run.info.status) for run in stored) == [
        ("1", "FINISHED"),
        ("2", "FINISHED"),
        ("3", "FINISHED"),
        ("5", "RUNNING"),
    ]
    for run in stored:
        assert [step for step, *_ in points(client, run, OBJECTIVE_METRIC)] == [1, 2, 3]


def test_a_trials_run_holds_its_settings_epochs_facts_and_best_scores(client: MlflowClient) -> None:
    result = trial_record(number=7, score=0.8)
    run = heard(
        client,
        lambda runs: runs.on_trial_start(fresh(result)),
        lambda runs: runs.on_epoch_end(result, epoch_report(1, 0.7)),
        lambda runs: runs.on_epoch_end(result, epoch_report(2, 0.8)),
        lambda runs: runs.on_trial_end(result, TrialReport(status="complete", epoch=2)),
    )
    assert run.info.run_name == "trial-007"
    wanted = {"trial": "7", "lr": "0.001", "log10_lr": "-3.0", "optimizer": "adamw", "image_size": "32", "blocks": "18"}
    assert wanted.items() <= run.data.params.items()
    assert [value for _, value, _ in points(client, run, "val_balanced_accuracy")] == [0.7, 0.8]
    assert (run.data.metrics["best_val_balanced_accuracy"], run.data.metrics["best_epoch"]) == (0.8, 2)
    assert result.config.from_json(run.data.tags["freezeline.trial_config"]) == result.config


def test_a_fact_that_is_another_at_the_end_is_a_tag(client: MlflowClient) -> None:
    first, last = {"blocks": 18, "features": "fp16"}, {"blocks": 18, "features": "uncached (disk full)"}
    result = trial_record().model_copy(update={"runtime_info": last})
    run = heard(
        client,
        lambda runs: runs.on_trial_start(fresh(result)),
        lambda runs: runs.on_epoch_end(result, epoch_report(1, 0.7).model_copy(update={"runtime_info": first})),
        lambda runs: runs.on_epoch_end(result, epoch_report(2, 0.8).model_copy(update={"runtime_info": last})),
        lambda runs: runs.on_trial_end(result, TrialReport(status="complete", epoch=2)),
    )
    assert (run.data.params["features"], run.data.tags["features"]) == ("fp16", "uncached (disk full)")
    assert "blocks" not in run.data.tags


def test_a_failed_trials_run_holds_the_traceback(client: MlflowClient) -> None:
    failed = trial_record(score=None, status="failed", reason="ValueError: no")
    report = TrialReport(status="failed", epoch=0, traceback="Traceback: no")
    run = heard(client, lambda runs: runs.on_trial_start(failed), lambda runs: runs.on_trial_end(failed, report))
    from mlflow.artifacts import load_text

    assert load_text(f"{run.info.artifact_uri}/traceback.txt") == "Traceback: no"
    assert run.data.metrics == {}


def test_a_trials_run_is_found_by_its_uid_alone(client: MlflowClient) -> None:
    deliver(client, start("a"), start("b"))
    found = find_run(client, EXPERIMENT, "b")
    assert found is not None
    assert client.get_run(found).data.tags["freezeline.trial_uid"] == "b"
    assert find_run(client, EXPERIMENT, "c") is None
