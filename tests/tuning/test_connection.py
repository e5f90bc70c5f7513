"""Connecting to tracking stores as people have them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from data.errors import TrackingError
from tuning.common.environment import configure_environment
from tuning.tracking.connection import absolute_uri, connect

CONNECT = "from tuning.tracking.connection import connect; connect()"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREEZELINE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:mlruns", "file:///tmp/no-such-mlruns"])
def test_a_file_store_is_refused_with_mlflows_advice(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match=r"migrate-filestore.*sqlite:///mlflow\.db.*MLFLOW_ALLOW_FILE_STORE=true"):
        connect()


def test_mlflows_own_message_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("the schema is out of date\nrun mlflow db upgrade")

    monkeypatch.setattr(mlflow, "MlflowClient", fail)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "sqlite:///mlflow.db")
    with pytest.raises(TrackingError, match="MLflow raised ValueError: the schema is out of date; correct"):
        connect()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mlruns", "file://{folder}/mlruns"),
        ("file:mlruns", "file://{folder}/mlruns"),
        ("file:///a/mlruns", "file:///a/mlruns"),
        ("sqlite:///my.db", "sqlite:///{folder}/my.db"),
        ("sqlite:////a/my.db", "sqlite:////a/my.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_an_absolute_address_is_valid_in_any_folder(uri: str, expected: str, tmp_path: Path) -> None:
    assert absolute_uri(uri) == expected.format(folder=tmp_path)


def test_a_trailing_slash_of_the_server_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/prefix/")
    configure_environment()
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://host:5000/prefix"


def test_two_first_commands_at_once_create_one_database(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    processes = [
        subprocess.Popen([sys.executable, "-c", CONNECT], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
