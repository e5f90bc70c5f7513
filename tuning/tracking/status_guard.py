"""The last word on the run that ``mlflow run`` opened: a process that outlives it for a moment.

When the command that it started ends with an error, ``mlflow run`` sets the run to FAILED whatever the command has
set before (MLflow 3.17 compares the status' text with numbers). A search that the user ended is KILLED, so that is
written again once ``mlflow run`` is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

from tuning.tracking.environment import REPOSITORY

MAX_WAIT_S = 120.0  # for mlflow run to end; it only waits for us
OVERWRITTEN_WITHIN_S = 5.0  # after it ended: nobody will
POLL_S = 0.1


def spawn_status_guard(run_id: str, status: str) -> None:
    """Start the process that sets the run to ``status`` after our parent process, ``mlflow run``, has ended."""
    subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "tuning.tracking.status_guard", run_id, status, str(os.getppid())],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def restore_status(run_id: str, status: str, pid: int) -> None:
    """Wait for the process ``pid`` to end and for the run to be overwritten, then set it to ``status``."""
    import psutil
    from mlflow import MlflowClient

    client = MlflowClient()
    with contextlib.suppress(psutil.Error):  # gone already, or still there: then nothing is overwritten soon
        psutil.Process(pid).wait(MAX_WAIT_S)
    ends = time.monotonic() + OVERWRITTEN_WITHIN_S
    while client.get_run(run_id).info.status == status and time.monotonic() < ends:
        time.sleep(POLL_S)
    client.set_terminated(run_id, status)


if __name__ == "__main__":
    restore_status(sys.argv[1], sys.argv[2], int(sys.argv[3]))
