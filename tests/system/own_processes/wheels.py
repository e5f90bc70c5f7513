"""Wheels of a packaged model's requirements: ``python -m tests.system.own_processes.wheels FOLDER`` fills the folder.

``.ci/run`` runs it before the tests, which install from the folder and therefore need no network.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from models.packaging.mlflow_model import requirements

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def build_wheels(folder: Path, names: Sequence[str]) -> None:
    """Download or build the wheels of packages and of all that they require; those in the folder are reused."""
    subprocess.run([*PIP, "wheel", "--wheel-dir", folder, "--find-links", folder, *names], check=True)


def install_wheels(python: Path, wheels: Path, requirements_file: Path) -> None:
    """Install requirements into the environment of ``python``, which needs no pip, from a folder alone.

    Modules are not compiled: most of them are never imported.
    """
    command = [*PIP, "--python", python, "install", "--no-index", "--find-links", wheels, "--no-compile"]
    subprocess.run([*command, "-r", requirements_file], check=True)


if __name__ == "__main__":
    build_wheels(Path(sys.argv[1]), requirements("model.onnx"))
