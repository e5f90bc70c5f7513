"""The environment variables of a command: set in one place, at its start."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tuning import __main__, cli
from tuning.common.environment import DEFAULTS, configure_environment
from tuning.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]
WRITES = re.compile(r"os\.environ(\[[^]]+\] = |\.(setdefault|update|pop)\(|\.clear)|os\.putenv|del os\.environ")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*DEFAULTS, "MLFLOW_RUN_ID", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # restores it after the test
        monkeypatch.delenv(name)


def test_variables_are_set_unless_the_user_has_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "DEBUG")
    configure_environment()
    assert {name: os.environ[name] for name in DEFAULTS} == {**DEFAULTS, "MLFLOW_LOGGING_LEVEL": "DEBUG"}


def test_pickle_is_disabled_even_if_the_user_has_enabled_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    configure_environment()
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


@pytest.mark.parametrize(
    ("variables", "has_new_token"),
    [
        ({}, True),
        ({"RAY_ADDRESS": "far:6379"}, False),
        ({"RAY_AUTH_MODE": "disabled"}, False),
        ({"RAY_AUTH_TOKEN_PATH": "/token"}, False),
        ({"RAY_AUTH_TOKEN": "given"}, False),
    ],
)
def test_a_local_ray_has_a_random_token_unless_the_user_has_set_one(
    variables: dict[str, str], has_new_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    configure_environment()
    assert os.environ["RAY_AUTH_MODE"] == variables.get("RAY_AUTH_MODE", "token")
    assert (len(os.environ.get("RAY_AUTH_TOKEN", "")) == 64) is has_new_token


@pytest.mark.parametrize(("value", "run_id"), [("abc", "abc"), ("", None)])
def test_the_run_of_mlflow_run_is_returned_and_removed(
    value: str, run_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", value)
    assert configure_environment() == run_id
    assert "MLFLOW_RUN_ID" not in os.environ
    assert configure_environment() is None


def test_a_command_starts_with_the_variables_and_receives_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    class AnyCommand:
        Options, POSITIONALS = Recipe, ()

        @staticmethod
        def run(*arguments: object) -> int:
            calls.append((*arguments, os.environ["MLFLOW_LOGGING_LEVEL"]))
            return 3

    monkeypatch.setattr(cli, "load", lambda _: AnyCommand)
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert __main__.main(["tune", "--trials", "1"]) == 3
    assert calls == [(Recipe(trials=1), "abc", "ERROR")]


def test_variables_are_written_in_one_place_apart_from_a_temporary_one() -> None:
    files = [path for folder in ("data", "models", "tuning") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert {str(path.relative_to(ROOT)) for path in files if WRITES.search(path.read_text())} == {
        "tuning/common/environment.py",
        "tuning/search/ray_runtime.py",  # temporary_env
    }


CONNECT = """
from tuning.common.environment import configure_environment
configure_environment()
from tuning.tracking.connection import connect
connect()
"""


def test_the_first_search_of_a_folder_creates_the_database_silently(tmp_path: Path) -> None:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", CONNECT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "mlflow.db").exists()


BLAS_THREADS = """
import scipy.linalg, threadpoolctl
print([pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"])
"""


def test_the_processes_of_a_search_use_one_thread_of_openblas() -> None:
    configure_environment()
    done = subprocess.run([sys.executable, "-c", BLAS_THREADS], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {1}
