"""No secret of the environment reaches a parameter, tag, artifact, printed line or error message."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from tests.tuning.factories import dataset, recipe, trial_record
from tuning import __main__, cli
from tuning.common.redaction import Redactor, redact
from tuning.common.trial_record import TrialReport
from tuning.tracking.environment import REPOSITORY
from tuning.tracking.operations import PARENT_UID, LogFile, LogText, StartRun, redacted_operation
from tuning.tracking.parent_run import ParentRun
from tuning.tracking.trial_logger import TrialLogger
from tuning.ui.console import print_tables
from tuning.ui.session import open_event_bus

if TYPE_CHECKING:
    from mlflow import MlflowClient

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+planted",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED00",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "HF_TOKEN": "hf_plantedplantedplantedplantedplanted",
    "RAY_AUTH_TOKEN": "planted-ray-token",
    "MLFLOW_TRACKING_PASSWORD": "planted-tracking-password",
    "DATABASE_URL": "postgresql://me:planted%40password@db.example/runs",
    "SOME_API_KEY": "planted-api-key",
}
SECRETS = (
    *(value for name, value in PLANTED.items() if name != "DATABASE_URL"),
    "planted@password",
    "planted%40password",
)
TEXT = "; ".join([*SECRETS, PLANTED["DATABASE_URL"]])


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def assert_clean(text: str) -> None:
    assert [secret for secret in SECRETS if secret in text] == []
    assert "planted" not in text.lower()


def test_every_planted_secret_is_masked() -> None:
    assert_clean(redact(TEXT))
    assert redact(TEXT).endswith("postgresql://me:***@db.example/runs")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:pass@host:5000/x", "http://me:***@host:5000/x"),
        ("see https://u:p@h and s3://k:s@b/c", "see https://u:***@h and s3://k:***@b/c"),
        ("postgresql://me:se:c@ret@host/db", "postgresql://me:***@host/db"),
        ("http://secret:secret@secret/secret", "http://secret:***@secret/secret"),
        ("http://me@host", "http://me@host"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("key AKIAABCDEFGHIJKLMNOP.", "key ***."),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer ***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "***"),
        ("http://host:5000/#/compare-runs?a=@b", "http://host:5000/#/compare-runs?a=@b"),
        ("models:/digits@champion is version 1", "models:/digits@champion is version 1"),
        ("lr 1e-3 at 12:30, mail me@example.org", "lr 1e-3 at 12:30, mail me@example.org"),
    ],
)
def test_only_passwords_and_well_known_keys_are_masked(text: str, masked: str) -> None:
    assert redact(text) == masked


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters=":@")))
def test_a_text_without_a_secret_is_not_changed(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "token"), ("MY_TOKEN", "a"), ("SECRET_DIR", "/usr/lib")])
def test_ordinary_values_of_secret_variables_are_not_masked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert redact(f"before {value} after") == f"before {value} after"


def run_as_text(client: MlflowClient, run_id: str, folder: Path) -> str:
    """Return all data of a run in MLflow as text, including its artifacts."""
    run = client.get_run(run_id)
    for artifact in client.list_artifacts(run_id):
        client.download_artifacts(run_id, artifact.path, str(folder))
    files = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    return json.dumps([run.to_dictionary(), str(run.inputs), *files])


def test_no_secret_reaches_a_run_or_the_outbox(client: MlflowClient, tmp_path: Path) -> None:
    pets = dataset(tmp_path)
    parent = ParentRun.open(client, None, "pets")
    parent.log_search_metadata({**recipe().model_dump(mode="json"), "data": TEXT}, {"search_folder": TEXT}, pets)
    parent.set_tags({"comparison": TEXT})
    parent.log_text(TEXT, "notes.txt")
    report = tmp_path / "report.html"
    report.write_text(f"<p>{TEXT}</p>")
    parent.log_file(report)
    runs = TrialLogger(
        parent.writer, {"name": "pets", "digest": "f00d", "source_type": "local", "source": "{}"}, parent._paths
    )
    failed = trial_record(score=None, status="failed", reason=TEXT)
    runs.on_trial_start(failed)
    runs.on_trial_end(failed, TrialReport(status="failed", epoch=0, traceback=TEXT))
    parent.end("FAILED", TEXT)
    assert parent.close() == ""
    for run_id in (parent.run_id, parent.writer.outbox.run_ids[failed.trial_uid]):
        (tmp_path / run_id).mkdir()
        text = run_as_text(client, run_id, tmp_path / run_id)
        assert "***" in text
        assert_clean(text)
    assert_clean(parent._paths.outbox.read_text())
    assert report.read_text() == f"<p>{TEXT}</p>", "the original file is not changed"


def test_a_binary_file_is_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\xff\xfe" + TEXT.encode())
    Redactor().file(file)
    assert file.read_bytes() == b"\xff\xfe" + TEXT.encode()


def test_operations_without_secrets_are_not_changed() -> None:
    for operation in (StartRun("u", "n", {"lr": 0.1}, {}), LogText(PARENT_UID, "a", "b"), LogFile(PARENT_UID, "a", "")):
        assert redacted_operation(operation, Redactor()) == operation


def test_no_secret_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(TEXT)
    with open_event_bus("tune", quiet=False, events="text") as bus:
        bus.info(TEXT)
        bus.show(TEXT)
        logging.getLogger("tuning.any").warning("see %s", TEXT)
    output = capsys.readouterr()
    assert (output.out.count("***@db.example"), output.err) == (4, "")
    assert_clean(output.out)


def test_no_secret_is_in_an_error_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*_: object) -> int:
        raise UserError(TEXT)

    monkeypatch.setattr(cli, "run", run)
    assert __main__.main(["audit"]) == 2
    assert_clean(capsys.readouterr().err)


def test_no_secret_is_in_the_traceback_of_an_uncaught_exception() -> None:
    code = (
        "import runpy, sys\nfrom tuning import cli\n"
        "def load(name): raise RuntimeError(sys.argv[2])\n"
        "cli.load = load\nrunpy.run_module('tuning', run_name='__main__', alter_sys=True)\n"
    )
    command = [sys.executable, "-c", code, "audit", TEXT]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "RuntimeError" in process.stderr
    assert_clean(process.stderr)
