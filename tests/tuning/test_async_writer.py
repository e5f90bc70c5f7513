"""Async writer on a real tracking database: each operation arrives once and in order; failures are reported."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.mlflow_helpers import (
    EXPERIMENT,
    PARENT_TAGS,
    FlakyClient,
    deliver,
    metric_points,
    only_run,
    open_writer,
    start_run,
)
from tuning.tracking.async_writer import MAX_RETRIES, QueuedOperation, to_batches
from tuning.tracking.mlflow_sink import find_trial_run, to_params
from tuning.tracking.operations import EndRun, LogEpoch, Operation, StartRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("no_pauses")


def test_all_metric_points_arrive_once_with_their_steps_and_times(client: MlflowClient) -> None:
    epochs = [LogEpoch("uid0", step, {"loss": 1 / step, "lr": 0.1}, time_ms=1_000 * step) for step in range(1, 31)]
    assert deliver(client, start_run(), *epochs) == ()
    run = only_run(client)
    assert metric_points(client, run, "loss") == [(step, 1 / step, 1_000 * step) for step in range(1, 31)]
    assert len(metric_points(client, run, "lr")) == 30


def test_a_run_has_its_name_parameters_tags_and_times(client: MlflowClient) -> None:
    end = EndRun("uid0", "KILLED", {"reason": "stopped", "empty": ""}, time_ms=9_000)
    assert deliver(client, start_run(lr=1e-3, optimizer="adam"), end) == ()
    run = only_run(client)
    assert run.info.run_name == "trial-uid0"
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("KILLED", 1_000, 9_000)
    assert run.data.params == {"lr": "0.001", "optimizer": "adam"}
    expected = {"freezeline.trial_uid": "uid0", "freezeline.trial_config": "{}", "reason": "stopped", "empty": ""}
    assert {**PARENT_TAGS, **expected}.items() <= run.data.tags.items()


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED"])
def test_a_run_ends_with_the_given_status(client: MlflowClient, status: str) -> None:
    deliver(client, start_run(), EndRun("uid0", status, {}))
    assert only_run(client).info.status == status


def test_parameters_of_an_epoch_are_logged(client: MlflowClient) -> None:
    deliver(client, start_run(lr=0.1), LogEpoch("uid0", 1, {"loss": 0.5}, {"blocks": 18}))
    assert only_run(client).data.params == {"lr": "0.1", "blocks": "18"}


def test_a_second_start_reuses_the_existing_run(client: MlflowClient) -> None:
    for step in (1, 2):  # the second writer belongs to the resumed search
        assert deliver(client, start_run(lr=0.1), LogEpoch("uid0", step, {"loss": 0.5}, time_ms=step)) == ()
    assert metric_points(client, only_run(client), "loss") == [(1, 0.5, 1), (2, 0.5, 2)]


def test_an_epoch_that_is_sent_twice_is_one_point(client: MlflowClient) -> None:
    epoch = LogEpoch("uid0", 1, {"loss": 0.5, "bad": float("nan")}, time_ms=7)
    assert deliver(client, start_run(), epoch, epoch) == ()
    assert deliver(client, start_run(), epoch) == ()
    assert metric_points(client, only_run(client), "loss") == [(1, 0.5, 7)]


def test_infinite_metrics_are_dropped_and_the_others_arrive(client: MlflowClient) -> None:
    deliver(client, start_run(), LogEpoch("uid0", 1, {"loss": float("inf"), "accuracy": 0.5}))
    assert only_run(client).data.metrics == {"accuracy": 0.5}


def test_more_metrics_than_fit_into_one_call_arrive(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuning.tracking.mlflow_sink.METRICS_PER_CALL", 7)
    assert deliver(client, start_run(), LogEpoch("uid0", 1, {f"m{i}": float(i) for i in range(20)})) == ()
    assert only_run(client).data.metrics == {f"m{i}": float(i) for i in range(20)}


def test_a_long_parameter_is_truncated_to_mlflows_limit(client: MlflowClient) -> None:
    assert deliver(client, start_run(long="x" * 7000)) == ()
    assert only_run(client).data.params == {"long": "x" * 6000}
    assert to_params({"a": 1, "b": None}) == [("a", "1"), ("b", "None")]


def test_operations_of_concurrent_trials_reach_their_own_runs(client: MlflowClient) -> None:
    uids = ("a", "b", "c")
    writer = open_writer(client)
    for uid in uids:
        writer.send(start_run(uid))
    for step in (1, 2, 3):
        for index, uid in enumerate(uids):
            writer.send(LogEpoch(uid, step, {"loss": float(index)}, time_ms=step))
    writer.send(EndRun("b", "FAILED", {}))
    assert writer.close() == ()
    assert set(writer.outbox.run_ids) == set(uids)
    for index, uid in enumerate(uids):
        run = client.get_run(writer.outbox.run_ids[uid])
        assert metric_points(client, run, "loss") == [(step, float(index), step) for step in (1, 2, 3)]
        assert run.info.status == ("FAILED" if uid == "b" else "RUNNING")


def test_a_failed_call_is_retried(client: MlflowClient) -> None:
    flaky = FlakyClient(client, "create_run", lambda call, _: call <= 3)
    assert deliver(flaky, start_run(), LogEpoch("uid0", 1, {"loss": 0.5}, time_ms=7)) == ()
    assert len(flaky.calls) == 4
    assert metric_points(client, only_run(client), "loss") == [(1, 0.5, 7)]


def test_a_retry_after_the_run_was_created_creates_no_second_run(client: MlflowClient) -> None:
    flaky = FlakyClient(client, "log_batch", lambda call, _: call == 1)
    assert deliver(flaky, start_run(lr=0.1)) == ()
    assert only_run(client).data.params == {"lr": "0.1"}


def test_a_run_whose_creation_was_not_confirmed_is_found(client: MlflowClient) -> None:
    class LosesFirstResponse(FlakyClient):
        def __getattr__(self, name: str) -> Any:
            method = getattr(self._client, name)

            def call(*args: Any, **kwargs: Any) -> Any:
                response = method(*args, **kwargs)
                self.calls.append(args)
                if name == "create_run" and len(self.calls) == 1:
                    raise ConnectionError("the response was lost")
                return response

            return call

    flaky = LosesFirstResponse(client, "", lambda *_: False)
    assert deliver(flaky, start_run(lr=0.1), EndRun("uid0", "FINISHED", {})) == ()
    assert only_run(client).data.params == {"lr": "0.1"}
    assert only_run(client).info.status == "FINISHED"


def test_undelivered_operations_are_reported_not_raised(client: MlflowClient) -> None:
    flaky = FlakyClient(client, "set_terminated", lambda *_: True)
    undelivered = deliver(flaky, start_run(), EndRun("uid0", "FINISHED", {}))
    assert undelivered == ("EndRun of trial uid0 (ConnectionError)",)
    assert len(flaky.calls) >= MAX_RETRIES


def test_a_failing_trial_does_not_block_others(client: MlflowClient) -> None:
    writer = open_writer(client)
    writer.send(LogEpoch("never started", 1, {"loss": 0.5}))
    writer.send(start_run())
    writer.send(EndRun("uid0", "FINISHED", {}))
    assert [description.split(" (")[0] for description in writer.close()] == ["epoch 1 of trial never started"]
    assert only_run(client).info.status == "FINISHED"


def deliver_as_one_batch(client: MlflowClient, *operations: Operation) -> tuple[tuple[str, ...], FlakyClient]:
    """Queue operations while the run is being created, so that they form one batch; return the undelivered ones."""
    may_continue = threading.Event()
    flaky = FlakyClient(client, "log_batch", lambda *_: not may_continue.wait(10))
    writer = open_writer(flaky)
    writer.send(start_run(lr=0.1))
    for operation in operations:
        writer.send(operation)
    may_continue.set()
    return writer.close(), flaky


def test_queued_epochs_are_sent_in_one_call(client: MlflowClient) -> None:
    epochs = [LogEpoch("uid0", step, {"loss": 0.5}, time_ms=step) for step in range(1, 21)]
    undelivered, flaky = deliver_as_one_batch(client, *epochs)
    assert undelivered == ()
    assert len(flaky.calls) <= 3  # the parameters, possibly the first epochs, the rest
    assert len(metric_points(client, only_run(client), "loss")) == 20


def test_only_the_rejected_operation_of_a_batch_is_skipped(client: MlflowClient) -> None:
    invalid = LogEpoch("uid0", 2, {"no\nname": 0.5}, time_ms=2)
    valid = [LogEpoch("uid0", step, {"loss": 0.5}, time_ms=step) for step in (1, 3)]
    undelivered, _ = deliver_as_one_batch(client, valid[0], invalid, valid[1])
    assert undelivered == ("epoch 2 of trial uid0 (MlflowException)",)
    assert [step for step, _, _ in metric_points(client, only_run(client), "loss")] == [1, 3]


def test_a_permanently_rejected_operation_is_reported_and_blocks_nothing(client: MlflowClient) -> None:
    operations = [start_run(lr=0.1), LogEpoch("uid0", 1, {}, {"lr": 0.2}), EndRun("uid0", "FINISHED", {})]
    assert deliver(client, *operations) == ("epoch 1 of trial uid0 (MlflowException)",)
    assert only_run(client).info.status == "FINISHED"


def test_send_never_waits(client: MlflowClient) -> None:
    may_continue = threading.Event()
    writer = open_writer(FlakyClient(client, "create_run", lambda *_: not may_continue.wait(30)))
    for operation in (start_run(), EndRun("uid0", "FINISHED", {})):
        writer.send(operation)
    assert writer.outbox.run_ids == {}, "the writer waits for the server, the search does not"
    may_continue.set()
    assert writer.close() == ()


def test_each_undelivered_operation_is_reported(client: MlflowClient) -> None:
    may_continue = threading.Event()
    writer = open_writer(FlakyClient(client, "create_run", lambda *_: may_continue.wait(10)))
    for operation in (start_run(), *(LogEpoch("uid0", step, {"loss": 0.5}) for step in (1, 2, 3))):
        writer.send(operation)
    may_continue.set()
    assert len(writer.close()) == 4


def test_a_trials_run_is_found_by_its_uid(client: MlflowClient) -> None:
    deliver(client, start_run("a"), start_run("b"))
    run_id = find_trial_run(client, EXPERIMENT, "b")
    assert run_id is not None
    assert client.get_run(run_id).data.tags["freezeline.trial_uid"] == "b"
    assert find_trial_run(client, EXPERIMENT, "c") is None


# --- batches ---

operation_lists = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "epoch", "end"])).map(
        lambda uid_and_kind: {
            "start": StartRun(uid_and_kind[0], "", {}, {}),
            "epoch": LogEpoch(uid_and_kind[0], 1, {}),
            "end": EndRun(uid_and_kind[0], "FINISHED", {}),
        }[uid_and_kind[1]]
    ),
    max_size=20,
)


@given(operation_lists)
def test_batches_keep_every_operation_and_the_order_of_each_trial(operations: list[Operation]) -> None:
    queued_operations = map(QueuedOperation, range(len(operations)), operations)
    batches = [[queued.operation for queued in batch] for batch in to_batches(queued_operations)]
    flat = [operation for batch in batches for operation in batch]
    assert len(flat) == len(operations)
    for uid in "abc":
        ids = [id(operation) for operation in flat if operation.trial_uid == uid]
        assert ids == [id(operation) for operation in operations if operation.trial_uid == uid]
    for batch in batches:
        assert len(batch) == 1 or {type(operation) for operation in batch} == {LogEpoch}
        assert len({operation.trial_uid for operation in batch}) == 1


def test_epochs_of_one_trial_share_a_batch_across_those_of_others() -> None:
    epochs = [LogEpoch(uid, step, {}) for step in (1, 2) for uid in "ab"]
    batches = to_batches(map(QueuedOperation, range(4), epochs))
    assert [[queued.offset for queued in batch] for batch in batches] == [[0, 2], [1, 3]]
