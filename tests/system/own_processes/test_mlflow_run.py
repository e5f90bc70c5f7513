"""``mlflow run .`` in a terminal: interrupted by Ctrl-C, and with invalid options."""

from __future__ import annotations

import re
import time

import psutil

from tests.system.conftest import ROOT, SMALL, Workspace, run_program, runs_of
from tests.system.output_filter import foreign_lines
from tests.terminal import Terminal

# Lines of mlflow run itself and, after Ctrl-C, of its Python process.
MLFLOW_LINE = re.compile(
    r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (INFO|ERROR|WARNING) mlflow\."
    r"|\^C|Traceback|Aborted!|.*KeyboardInterrupt"
)


def mlflow_run(workspace: Workspace, **options: str) -> list[str]:
    settings = {"data": str(workspace.photos), **SMALL, **options}
    parameters = [argument for name, text in settings.items() for argument in ("-P", f"{name}={text}")]
    return [
        "mlflow",
        "run",
        str(ROOT),
        "-e",
        "tune",
        "--env-manager",
        "local",
        "--experiment-name",
        "photos",
        *parameters,
    ]


def test_ctrl_c_stops_cleanly_reports_finished_trials_and_leaves_no_run_running(workspace: Workspace) -> None:
    terminal = Terminal(mlflow_run(workspace, trials="200", max_epochs="3"), workspace.folder)
    terminal.read_until(r"\[1/2\] trials")
    processes = list(psutil.Process(terminal.pid).children(recursive=True))
    assert processes
    terminal.type(b"\x03")
    typed_s = time.monotonic()
    terminal.read_until("Ctrl-C: stopping trials, packaging the best so far")
    assert time.monotonic() - typed_s < 0.5
    status = terminal.wait()
    assert status != 0
    assert "the best model so far is packaged" in terminal.output
    assert "Best trials by validation" in terminal.output
    assert "Traceback (most recent call last)" not in terminal.output.split("the best model so far is packaged")[0]
    assert terminal.output.rfind("\x1b[?25h") > terminal.output.rfind("\x1b[?25l")  # the cursor is visible
    assert not [line for line in terminal.screen if "━" in line or "curve" in line]  # the live view is gone
    assert [line for line in foreign_lines(terminal.screen) if not MLFLOW_LINE.match(line)] == []
    deadline = time.monotonic() + 30
    while runs_of(workspace.client)[0].info.status != "KILLED" and time.monotonic() < deadline:
        time.sleep(0.1)  # mlflow run sets FAILED; the status guard corrects it
    parent, children = runs_of(workspace.client)
    assert parent.info.status == "KILLED"
    for command in ("resume", "promote"):
        assert f"freezeline {command} {parent.info.run_id}" in terminal.output
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    assert workspace.client.search_registered_models() == []
    files = {file.path for file in workspace.client.list_artifacts(parent.info.run_id)}
    assert "internal" in files
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_invalid_options_fail_mlflow_run_and_its_run_with_the_error_message(workspace: Workspace) -> None:
    done = run_program(*mlflow_run(workspace, data=str(workspace.folder / "nowhere"), trials="0"))
    assert done.returncode == 1
    assert "tune: trials must be at least 1, got '0'." in done.stderr
    runs = workspace.client.search_runs([workspace.client.get_experiment_by_name("photos").experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]
