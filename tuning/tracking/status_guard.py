"""Status guard: a detached process that restores the run status which ``mlflow run`` overwrites.

When its command exits with an error, ``mlflow run`` sets the run to FAILED, whatever status the command has set
(MLflow 3.17 compares the text of the status with numbers). A search that the user stopped must be KILLED, so this
process sets the status again after ``mlflow run`` has exited.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from tuning.tracking.environment import REPOSITORY

MAX_WAIT_S = 120.0  # for the exit of mlflow run, which waits for its command only
OVERWRITTEN_WITHIN_S = 5.0  # of the exit of mlflow run; later the status is final
POLL_S = 0.1


def spawn_status_guard(run_id: str, status: str) -> None:
    """Start a process that sets the run to ``status`` after the parent process, ``mlflow run``, has exited."""
    subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "tuning.tracking.status_guard", run_id, status, str(os.getppid())],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def restore_status(run_id: str, status: str, pid: int) -> None:
    """Wait until process ``pid`` has exited and has overwritten the run's status, then set it to ``status``."""
    import psutil
    from mlflow import MlflowClient

    client = MlflowClient()
    with contextlib.suppress(psutil.Error):  # already exited, or a timeout
        psutil.Process(pid).wait(MAX_WAIT_S)
    deadline_s = time.monotonic() + OVERWRITTEN_WITHIN_S
    while client.get_run(run_id).info.status == status and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    client.set_terminated(run_id, status)


if __name__ == "__main__":
    restore_status(sys.argv[1], sys.argv[2], int(sys.argv[3]))
