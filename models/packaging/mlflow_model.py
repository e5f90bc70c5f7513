"""A package as an MLflow model: saving, logging, and loading to continue training."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file

from models.classifier import build_classifier
from models.packaging import pyfunc_model
from models.packaging.export import ARTIFACTS, OPTIONAL_ARTIFACTS, PackageMember, member_prefixes
from models.packaging.exporters import quiet_exporters
from models.trial_config import TrialConfig

REQUIREMENTS = ("mlflow-skinny", "numpy", "pillow", "pandas")
INSTALLED_AS = {"mlflow-skinny": "mlflow"}  # a part of the package that is installed here
RUNTIMES = {"onnx": "onnxruntime", "pt2": "torch"}  # package that runs a graph, by file suffix


def log_package(folder: Path, run_id: str) -> str:
    """Log the output of ``export_package`` as a model of an existing run and return the model's URI.

    Uses the current tracking server. The status, parameters and metrics of the run are unchanged, and no run is started
    or ended.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = mlflow.MlflowClient()
    experiment_id = client.get_run(run_id).info.experiment_id
    model = client.create_logged_model(experiment_id, name="model", source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            save_package(folder, Path(scratch) / "model", run_id=run_id, model_id=model.model_id)
            client.log_model_artifacts(model.model_id, str(Path(scratch) / "model"))
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return f"models:/{model.model_id}"


def save_package(folder: Path, path: Path, run_id: str | None = None, model_id: str | None = None) -> None:
    """Save the output of ``export_package`` as an MLflow model at ``path``, which must not exist yet."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    graph = json.loads((folder / ARTIFACTS["facts"]).read_text())["graph"]
    optional = {name: file for name, file in OPTIONAL_ARTIFACTS.items() if (folder / file).exists()}
    files = {**ARTIFACTS, **optional, "graph": graph}
    params = [
        ParamSpec("top_k", DataType.integer, 0),
        ParamSpec("batch_size", DataType.integer, pyfunc_model.BATCH_SIZE),
        ParamSpec("reject", DataType.double, pyfunc_model.KEEP_ALL),
    ]
    with quiet_exporters():
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            python_model=pyfunc_model.__file__,
            artifacts={name: str(folder / file) for name, file in files.items()},
            signature=ModelSignature(inputs=Schema([ColSpec(DataType.string)]), params=ParamSchema(params)),
            pip_requirements=requirements(graph),
            input_example=input_example(),
            model_config={"allow_paths": False},  # MLflow only lets load_model override keys that exist here
        )


def input_example() -> list[str]:
    """Return the example of an input that is saved with a model: a small generated image as base64 text."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((32, 32)).convert("RGB").save(file, "PNG")
    return [base64.b64encode(file.getvalue()).decode()]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A packaged model loaded for training: its networks (an ensemble has several), and its class names in order."""

    members: tuple[PackageMember, ...]
    classes: tuple[str, ...]


def load_checkpoint(model_uri: str) -> LoadedCheckpoint:
    """Return the networks of a packaged model, frozen as their configurations specify; needs no weights or hub.

    Raises:
        mlflow.exceptions.MlflowException: the model does not exist, or its files could not be downloaded.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=scratch)) / "artifacts"
        trial = json.loads((folder / ARTIFACTS["trial"]).read_text())
        labels = tuple(json.loads((folder / ARTIFACTS["facts"]).read_text())["labels"])
        state_dict = load_file(folder / ARTIFACTS["weights"])
    trials = trial if isinstance(trial, list) else [{"config": trial, "weight": 1.0}]
    members = []
    for prefix, each in zip(member_prefixes(len(trials)), trials, strict=True):
        config = TrialConfig.model_validate(each["config"])
        network = config.network.model_copy(update={"weights": "none"})  # the package contains all weights
        classifier = build_classifier(network, len(labels), config.preprocessing.image_size, config.seed)
        tensors = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        classifier.load_state_dict(tensors)
        members.append(PackageMember(classifier, config, each["weight"]))
    return LoadedCheckpoint(tuple(members), labels)


def requirements(graph: str) -> list[str]:
    """Return the pip requirements of a package with this graph file, pinned to the installed versions."""
    names = (*REQUIREMENTS, RUNTIMES[graph.rpartition(".")[2]])
    versions = {name: version(INSTALLED_AS.get(name, name)).partition("+")[0] for name in names}
    return [f"{name}=={number}" for name, number in versions.items()]
