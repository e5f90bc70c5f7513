"""The quickstart notebook, run by Jupyter with the installed wheel, and the wheel's command in a hostile folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.system.own_processes.environments import environment_without_our_code

ROOT = Path(__file__).resolve().parents[3]
# Serving costs and the smoke test of the registered version are tested elsewhere. The exporter is the real one: its
# imports warn in a notebook, and the test shows that no one sees this.
SETUP = """
import contextlib
import tuning.registry.promotion, tuning.workflows.finalize, tuning.workflows.work_ahead
tuning.workflows.winner.COST_MEASUREMENT_BUDGET_S = -1
tuning.workflows.work_ahead.WorkAhead._step = lambda _: False
tuning.registry.promotion.verify_model_loads = lambda *_: None
tuning.workflows.finalize._clean_process = lambda _: contextlib.nullcontext()
"""
# A search of one small trial instead of minutes; the rest of the notebook is as people have it.
QUICK = (
    'trials=1, max_epochs=2, backbone="test_efficientnet", weights="none", image_size=32, sweep=False, rerun_top_k=0, '
    "batch_size=32, max_concurrent=1"
)


@pytest.fixture(scope="module")
def installed_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment with the wheel of this code, and all other packages of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools writes into the folder that it builds
    for name in ("data", "models", "tuning"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("freezeline.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("freezeline-*.whl")
    python = environment_without_our_code(folder / "environment")
    install = [sys.executable, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    return python


@pytest.fixture
def jupyter(installed_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make Jupyter start kernels with that Python; return an empty folder to work in."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [str(installed_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "p", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("FREEZELINE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    return work


@pytest.mark.timeout(600)
def test_the_quickstart_runs_in_a_notebook_with_the_installed_wheel(installed_python: Path, jupyter: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"demo", minutes=3', f'"demo", {QUICK}').replace("minutes=2", "trials=1")
    notebook.cells.insert(2, nbformat.v4.new_code_cell(SETUP))
    notebook.cells.append(nbformat.v4.new_code_cell("print(fl.__file__)"))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(jupyter)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") for output in outputs]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == [], "silent unless asked"
    assert any("models:/digits@champion is now version 1" in text for text in texts)
    assert any("<iframe srcdoc=" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert Path(texts[-1].strip()).is_relative_to(installed_python.parents[1])
    assert {path.name for path in jupyter.iterdir()} <= {"mlflow.db", "mlruns", "mlartifacts"}


def test_the_console_script_of_the_wheel_works_in_a_folder_with_modules_of_the_same_names(
    installed_python: Path, tmp_path: Path
) -> None:
    for name in ("data", "models", "tuning"):
        (tmp_path / f"{name}.py").touch()
    command = [str(installed_python.with_name("freezeline")), "audit", "demo"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits: 1,797 images in 10 classes")
