"""``mlflow run .`` as a person types it: from a terminal, to its end and ended by Ctrl-C."""

from __future__ import annotations

import re
import time

import psutil

from tests.system.conftest import ROOT, SMALL, World, program, runs_of
from tests.system.output_filter import foreign
from tests.terminal import Terminal

# What mlflow run itself says, of its own runner and, after Ctrl-C, of ours.
MLFLOWS = re.compile(
    r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (INFO|ERROR|WARNING) mlflow\."
    r"|\^C|Traceback|Aborted!|.*KeyboardInterrupt"
)


def mlflow_run(world: World, **options: str) -> list[str]:
    settings = {"data": str(world.photos), **SMALL, **options}
    parameters = [word for name, text in settings.items() for word in ("-P", f"{name}={text}")]
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


def test_ctrl_c_ends_cleanly_reports_what_is_finished_and_leaves_no_run_running(world: World) -> None:
    terminal = Terminal(mlflow_run(world, trials="200", max_epochs="3"), world.folder)
    terminal.read_until(r"trial \d+ complete")
    group = list(psutil.Process(terminal.pid).children(recursive=True))
    assert group
    terminal.type(b"\x03")
    status = terminal.wait()
    assert status != 0
    assert "the best so far is packaged" in terminal.shown
    assert "Best trials by validation" in terminal.shown
    assert "Traceback (most recent call last)" not in terminal.shown.split("the best so far is packaged")[0]
    assert terminal.shown.rfind("\x1b[?25h") > terminal.shown.rfind("\x1b[?25l")  # the cursor is there
    assert not [line for line in terminal.screen if "━" in line or "curve" in line]  # and nothing of the live view
    assert [line for line in foreign(terminal.screen) if not MLFLOWS.match(line)] == []
    ends = time.monotonic() + 30
    while runs_of(world.client)[0].info.status != "KILLED" and time.monotonic() < ends:
        time.sleep(0.1)  # mlflow run has set it to FAILED; a process of ours puts that right
    parent, children = runs_of(world.client)
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}
    assert world.client.search_registered_models() == []
    files = {file.path for file in world.client.list_artifacts(parent.info.run_id)}
    assert "candidate.json" in files
    _, alive = psutil.wait_procs(group, timeout=20)
    assert alive == []


def test_a_mistake_ends_mlflow_run_with_our_sentence_and_the_run_that_it_opened_failed(world: World) -> None:
    done = program(*mlflow_run(world, data=str(world.folder / "nowhere"), trials="0"))
    assert done.returncode == 1
    assert "tune: trials must be at least 1, got '0'." in done.stderr
    runs = world.client.search_runs([world.client.get_experiment_by_name("photos").experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]
