"""The smoke test of a version, in a real process with a minimal package."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tuning.registry.smoke_test import (
    CleanProcess,
    ModelLoadError,
    as_png,
    build_reference_predictions,
    verify_model_loads,
)

MODEL = """
import os, sys
import mlflow, pandas as pd
from mlflow.pyfunc.model import PythonModel

class Fake(PythonModel):
    def predict(self, context, model_input, params=None):
        if not sys.flags.isolated or os.listdir() or os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] != "false":
            raise RuntimeError("this process is not clean")
        for name in ("data.errors", "models.classifier", "tuning.cli"):
            try:
                __import__(name)
            except ImportError:
                continue
            raise RuntimeError(f"{name} can be imported")
        rows = [[len(content), 1.0] for content in model_input.iloc[:, 0]]
        frame = pd.DataFrame(rows, columns=["cat", "dog"])
        return frame.assign(label="cat", score=1.0, error=None)

mlflow.models.set_model(Fake())
"""
IMAGE = as_png(np.zeros((4, 4, 3), np.uint8))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, DataType, Schema

    folder = tmp_path_factory.mktemp("model")
    (folder / "fake.py").write_text(MODEL)
    signature = ModelSignature(inputs=Schema([ColSpec(DataType.binary)]))
    save_model(folder / "model", python_model=str(folder / "fake.py"), signature=signature, pip_requirements=[])
    return str(folder / "model")


def test_a_model_that_reproduces_its_reference_predictions_passes(model: str, tracking: str) -> None:
    verify_model_loads(model, build_reference_predictions([IMAGE], np.array([[len(IMAGE), 1.0]])), tracking)
    assert not list(Path(model).rglob("__pycache__"))


def test_a_model_with_other_predictions_fails_with_the_difference(model: str, tracking: str) -> None:
    with pytest.raises(ModelLoadError, match=r"within 0\.001, but a probability differs by 0\.01"):
        verify_model_loads(model, build_reference_predictions([IMAGE], np.array([[len(IMAGE), 0.99]])), tracking)


def test_a_model_that_cannot_be_loaded_fails_with_the_error_message(tmp_path: Path, tracking: str) -> None:
    with pytest.raises(ModelLoadError, match=r"missing must load in a clean process, but failed: .*missing"):
        verify_model_loads(str(tmp_path / "missing"), build_reference_predictions([IMAGE], np.ones((1, 2))), tracking)


def test_a_process_that_was_started_in_advance_runs_the_test_and_ends(model: str, tracking: str) -> None:
    reference = build_reference_predictions([IMAGE], np.array([[len(IMAGE), 1.0]]))
    with CleanProcess(tracking) as used, CleanProcess(tracking) as unused:
        verify_model_loads(model, reference, tracking, used)
        assert used._process.returncode == 0
        assert unused._process.poll() is None
    assert unused._process.returncode == -signal.SIGKILL
    assert not Path(unused._folder.name).exists()
