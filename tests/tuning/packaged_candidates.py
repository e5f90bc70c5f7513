"""Candidates with a real MLflow package whose model is a few lines of Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tuning.factories import CLASSES, candidate
from tuning.common.promotion_types import Candidate
from tuning.registry.candidate_store import reference_predictions_artifact, save_candidate
from tuning.registry.smoke_test import ReferencePredictions

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Correct for the first images of each class by file name (cat-0.png), wrong for all others.
MODEL = """
import mlflow, pandas as pd
from mlflow.pyfunc.model import PythonModel

class FakeModel(PythonModel):
    def load_context(self, context):
        self.config = context.model_config

    def predict(self, context, model_input, params=None):
        rows = []
        for file in model_input.iloc[:, 0]:
            label, _, number = file.stem.rpartition("-")
            is_correct = int(number) < self.config["num_correct"]
            rows.append({name: float((name == label) == is_correct) for name in self.config["classes"]})
        frame = pd.DataFrame(rows)
        frame.insert(0, "label", frame.idxmax(axis=1))
        frame.insert(1, "score", 1.0)
        frame.insert(2, "error", None)
        return frame

mlflow.models.set_model(FakeModel())
"""
PackageCandidate = Callable[..., Candidate]


def package_candidate(
    client: MlflowClient,
    folder: Path,
    num_correct: int,
    classes: Sequence[str] = CLASSES,
    run_id: str | None = None,
    images_per_class: int = 10,
) -> Candidate:
    """Log a package and its candidate; its model is correct for ``num_correct`` images of each class."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, DataType, Schema

    code = folder / "fake_model.py"
    code.write_text(MODEL)
    run_id = run_id or client.create_run("0").info.run_id
    model = client.create_logged_model("0", name="model", source_run_id=run_id)
    save_model(
        folder / model.model_id,
        python_model=str(code),
        model_config={"num_correct": num_correct, "classes": list(classes)},
        signature=ModelSignature(inputs=Schema([ColSpec(DataType.string)])),
        pip_requirements=[],
    )
    client.log_model_artifacts(model.model_id, str(folder / model.model_id))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    packaged = candidate(
        num_correct / images_per_class,
        classes,
        run_id,
        f"models:/{model.model_id}",
        images_per_class=images_per_class,
    )
    save_candidate(client, packaged)
    reference = ReferencePredictions(images=(), probabilities=())
    client.log_text(run_id, reference.to_json(), reference_predictions_artifact(model.model_id))
    return packaged


def aliases(client: MlflowClient) -> dict[str, int]:
    """Return the version that each alias of the model ``pets`` points to."""
    return {alias: int(version) for alias, version in client.get_registered_model("pets").aliases.items()}
