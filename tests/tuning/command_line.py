"""Run commands in the test process, as ``freezeline`` runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tuning.__main__ import main
from tuning.search.ray_runtime import RayRuntime

if TYPE_CHECKING:
    from mlflow import MlflowClient

Capture = pytest.CaptureFixture[str]


def error_lines(capsys: Capture, *arguments: str) -> list[str]:
    """Run a command that must fail with exit status 2; return the lines on standard error.

    Ray, which starts while networks are validated, is not started.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayRuntime, "start_async", lambda _: None)
        assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert "Traceback" not in stderr
    return stderr.splitlines()


def assert_untouched(client: MlflowClient) -> None:
    """Check that the tracking database has no new experiment and no run."""
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]
    assert client.search_runs(["0"]) == []
