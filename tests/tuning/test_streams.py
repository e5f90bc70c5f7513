"""Output streams and folders that a command cannot use as it would like to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tuning.search.ray_runtime import _short_temporary_folder

ROOT = Path(__file__).resolve().parents[2]


def run(arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m tuning {arguments}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)


def test_a_state_folder_that_cannot_be_written_is_one_sentence() -> None:
    result = run("audit demo", FREEZELINE_HOME="/dev/null/home")
    assert result.returncode == 2
    assert result.stderr.startswith("audit: FREEZELINE_HOME must be a folder that can be written, got /dev/null/home")
    assert len(result.stderr.splitlines()) == 1


def test_a_closed_standard_output_is_no_error() -> None:
    result = run("--version >&-")
    assert (result.returncode, result.stderr) == (0, "")


def test_characters_that_standard_output_cannot_encode_are_replaced(image_folder: Path) -> None:
    (image_folder / "red").rename(image_folder / "r\u00f6t")
    folder = image_folder.rename(image_folder.with_name("\u00e4pfel"))
    result = run(f"audit {folder}", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("length", "falls_back"), [(10, False), (80, True)])
def test_ray_uses_a_short_folder_if_the_temporary_one_is_too_long_for_sockets(
    length: int, falls_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/" + "t" * length)
    assert ("RAY_TMPDIR" in _short_temporary_folder()) is falls_back
