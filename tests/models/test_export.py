"""The packaged model in a process without this project and without pickle, and over HTTP."""

from __future__ import annotations

import base64
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from data import preprocessing
from data.preprocessing import normalize
from models.classifier import build_classifier
from models.packaging import pyfunc_model
from models.packaging.export import ExportResult, PackageFacts, PackageMember, export_package
from models.packaging.mlflow_model import load_checkpoint, log_package, requirements
from models.trial_config import NetworkConfig, TrialConfig
from tests.models.conftest import CLASSES, NETWORK, SIZE, Packaged, colored_pixels

ROOT = Path(__file__).parents[2]
FACTS = PackageFacts(labels=CLASSES, data_fingerprint="fingerprint")

# --- files of the package ---


def test_the_graph_is_a_single_onnx_file_that_agrees_with_torch(packaged: Packaged) -> None:
    assert packaged.export_result == ExportResult(
        graph="model.onnx", max_difference=packaged.export_result.max_difference, num_checked_images=12
    )
    assert packaged.export_result.max_difference < 1e-4
    assert {file.name for file in packaged.folder.iterdir()} == {
        *(
            "model.onnx",
            "facts.json",
            "preprocess.py",
            "novelty.py",
            "recording.py",
            "weights.safetensors",
            "trial.json",
        )
    }


def test_the_preprocessing_code_is_packaged_verbatim(packaged: Packaged) -> None:
    assert (packaged.folder / "preprocess.py").read_bytes() == Path(preprocessing.__file__).read_bytes()
    facts = json.loads((packaged.folder / "facts.json").read_text())
    assert facts["preprocessings"] == [packaged.config.preprocessing.to_dict()]
    assert facts["labels"] == list(CLASSES)
    assert facts["data_fingerprint"] == "fingerprint"


def test_training_can_continue_from_the_package(packaged: Packaged) -> None:
    loaded = load_checkpoint(packaged.model.as_uri())
    (member,) = loaded.members
    assert (member.config, member.weight, loaded.classes) == (packaged.config, 1, CLASSES)
    state = packaged.classifier.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in member.classifier.state_dict().items())
    assert len(member.classifier.state_dict()) == len(state) > 10
    frozen = [name for name, value in packaged.classifier.named_parameters() if not value.requires_grad]
    assert [name for name, value in member.classifier.named_parameters() if not value.requires_grad] == frozen
    before = member.classifier.head.state_dict()["1.weight"].clone()
    loss = member.classifier(torch.randn(2, 3, SIZE, SIZE)).square().sum()
    loss.backward()
    torch.optim.SGD([value for _, value in member.classifier.trainable_parameters()], lr=0.1).step()
    assert not torch.equal(member.classifier.head.state_dict()["1.weight"], before)


def test_requirements_are_pinned_like_those_of_the_project_and_exclude_torch(packaged: Packaged) -> None:
    project = (ROOT / "requirements.txt").read_text().split()
    packages = (packaged.model / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in packages} == {
        "mlflow-skinny",
        "numpy",
        "pillow",
        "pandas",
        "onnxruntime",
    }
    assert {line.replace("mlflow-skinny", "mlflow") for line in packages} <= set(project)
    assert any(line.startswith("torch==") for line in requirements("model.pt2"))


def test_no_file_of_the_model_is_a_pickle(packaged: Packaged) -> None:
    files = [file for file in packaged.model.rglob("*") if file.is_file()]
    assert len(files) == 14
    assert not [file.name for file in files if file.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin"}]
    assert not [file.name for file in files if file.read_bytes()[:1] == b"\x80"]


def test_exporting_does_not_change_the_classifier(packaged: Packaged) -> None:
    copy = build_classifier(packaged.config.network, len(CLASSES), SIZE, seed=0)
    trainable = [name for name, _ in packaged.classifier.trainable_parameters()]
    assert trainable == [name for name, _ in copy.trainable_parameters()]
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in packaged.classifier.state_dict().items())


# --- in a clean process ---

CLIENT = """
import base64, json, sys
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
import mlflow

sys.modules.update(dict.fromkeys(("data", "models", "tuning", "freezeline")))  # they cannot be imported
model = mlflow.pyfunc.load_model(sys.argv[1])
file = Path(sys.argv[2])
content = file.read_bytes()
frames = {str(count): model.predict([content] * count) for count in (1, 2, 5)}
frames["text"] = model.predict([base64.b64encode(content).decode()])
frames["path"] = model.predict([file])
frames["image"] = model.predict([Image.open(file)])
frames["array"] = model.predict(pd.Series([np.asarray(Image.open(file))]))
frames["mixed"] = model.predict([content, file])
(error,) = model.predict([str(file)])["error"]
assert "a string must be a base64-encoded image" in error
with_paths = mlflow.pyfunc.load_model(sys.argv[1], model_config={"allow_paths": True})
frames["text path"] = with_paths.predict([str(file)])
assert "torch" not in sys.modules, "torch was imported"
print(json.dumps({name: frame.to_dict("records") for name, frame in frames.items()}))
"""


@pytest.fixture(scope="module")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URI of an SQLite tracking store, which is set in the environment for this module."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:  # set_tracking_uri would override it in later modules
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.MlflowClient().create_experiment("search", artifact_location=(folder / "artifacts").as_uri())
        yield uri


def test_a_logged_package_loads_by_name_in_a_clean_process_with_pickle_forbidden(
    packaged: Packaged, tracking_uri: str, tmp_path: Path
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("search")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id)
    client.log_param(run.info.run_id, "lr", 0.1)
    model_uri = log_package(packaged.folder, run.info.run_id)
    after = client.get_run(run.info.run_id)
    assert (after.info.status, after.info.end_time, after.data.params) == ("RUNNING", None, {"lr": "0.1"})
    assert [output.model_id for output in after.outputs.model_outputs] == [model_uri.removeprefix("models:/")]
    logged = client.get_logged_model(model_uri.removeprefix("models:/"))
    assert (logged.experiment_id, logged.source_run_id, str(logged.status)) == (
        experiment.experiment_id,
        run.info.run_id,
        "READY",
    )
    version = mlflow.register_model(model_uri, "images")
    client.set_registered_model_alias("images", "champion", version.version)
    process = subprocess.run(
        [sys.executable, "-I", "-c", CLIENT, "models:/images@champion", str(packaged.image_file)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean_environment() | {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
    )
    assert process.returncode == 0, process.stderr
    predictions = json.loads(process.stdout)
    assert len(predictions) == 9
    for name, rows in predictions.items():
        probabilities = [[row[label] for label in CLASSES] for row in rows]
        assert np.abs(np.array(probabilities) - packaged.expected(len(rows))).max() < 1e-4, name
    assert list(tmp_path.iterdir()) == []


def clean_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
        "MLFLOW_DISABLE_TELEMETRY": "true"
    }


def test_the_saved_input_example_is_predicted(packaged: Packaged) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(packaged.model))
    predictions = model.predict(model.input_example)
    assert (list(predictions["error"]), set(predictions["label"]) <= set(CLASSES)) == ([None], True)
    request = json.loads((packaged.model / "serving_input_example.json").read_text())
    assert list(request) == ["inputs"]
    assert len(json.dumps(request)) < 2000


def test_a_failed_upload_marks_the_model_failed_and_keeps_the_run_running(
    packaged: Packaged, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    run = client.create_run("0")

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(mlflow.MlflowClient, "log_model_artifacts", fail)
    with pytest.raises(OSError, match="no space left"):
        log_package(packaged.folder, run.info.run_id)
    models = client.search_logged_models(["0"])
    assert [str(model.status) for model in models] == ["FAILED"]
    assert client.get_run(run.info.run_id).info.status == "RUNNING"


# --- over HTTP ---


@pytest.fixture(scope="module")
def server(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of the server that ``mlflow models serve --env-manager local`` starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    environment = clean_environment() | {
        "__pyfunc_model_path__": packaged.model.as_uri(),
        "SERVING_MODEL_CONFIG": json.dumps({"allow_paths": True}),
        pyfunc_model.CONFIG_VARIABLE: json.dumps({"allow_paths": True}),
    }
    process = subprocess.Popen(
        [*command, "mlflow.pyfunc.scoring_server.app:app"], env=environment, cwd=tmp_path_factory.mktemp("served")
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            assert process.poll() is None, "the server exited"
            time.sleep(0.2)
    pytest.fail("the server didn't start")


def invoke(server: str, payload: bytes, content_type: str = "application/json") -> tuple[int, str]:
    request = urllib.request.Request(f"{server}/invocations", data=payload, headers={"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.system
def test_a_server_accepts_base64_in_every_payload_format(packaged: Packaged, server: str) -> None:
    text = base64.b64encode(packaged.image_file.read_bytes()).decode()
    payloads = [
        {"inputs": [text, text]},
        {"instances": [text, text]},
        {"dataframe_split": {"data": [[text], [text]]}},
        {"dataframe_records": [{"image": text}, {"image": text}]},
    ]
    responses = [invoke(server, json.dumps(payload).encode()) for payload in payloads]
    responses.append(invoke(server, f"image\n{text}\n{text}\n".encode(), "text/csv"))
    for status, body in responses:
        assert status == 200, body
        rows = json.loads(body)["predictions"]
        probabilities = np.array([[row[label] for label in CLASSES] for row in rows])
        assert np.abs(probabilities - packaged.expected(2)).max() < 1e-4


@pytest.mark.system
def test_a_server_never_opens_a_path_even_with_allow_paths(packaged: Packaged, server: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it for reading blocks forever
    for path in (
        str(packaged.image_file),
        packaged.image_file.as_uri(),
        "/etc/hostname",
        "../model/MLmodel",
        str(pipe),
    ):
        for payload in ({"inputs": [path]}, {"dataframe_split": {"data": [[path]]}}):
            status, body = invoke(server, json.dumps(payload).encode())
            assert status == 200, body
            (row,) = json.loads(body)["predictions"]
            assert {name for name, value in row.items() if value is not None} == {"error"}
            assert "a string must be a base64-encoded image" in row["error"]
    missing_file, existing_file = (
        invoke(server, json.dumps({"inputs": [path]}).encode())
        for path in (str(tmp_path / "missing.png"), str(packaged.image_file))
    )
    assert missing_file == existing_file  # the response does not reveal whether the file exists


# --- other networks ---


NETWORKS = [
    NetworkConfig(backbone=NETWORK, weights="none", truncate=2, head="16:norm:leaky_relu+8"),
    NetworkConfig(backbone="timm/test_vit", weights="none", truncate=2, freeze_fraction=1.0),
    NetworkConfig(backbone=NETWORK, weights="none", truncate=1, freeze_fraction=1.0, head_features="all"),
    NetworkConfig(backbone="small_cnn", freeze_fraction=0.0, head="32:norm"),
    NetworkConfig(backbone="small_cnn", truncate=1),
]


@pytest.mark.parametrize(
    "network", NETWORKS, ids=lambda network: f"{network.backbone}-{network.truncate}-{network.head_features}"
)
def test_packages_of_truncated_networks_other_heads_and_small_cnn_contain_only_used_weights(
    network: NetworkConfig, packaged: Packaged, tmp_path: Path
) -> None:
    import onnx
    from safetensors.torch import load_file

    config = packaged.config.model_copy(update={"network": network})
    classifier = build_classifier(network, len(CLASSES), SIZE, seed=0)
    classifier.expects_features = True  # as after training on cached features
    result = export_package([PackageMember(classifier, config)], FACTS, [colored_pixels(5)[0]], tmp_path)
    assert (result.graph, result.notes) == ("model.onnx", ())
    state = load_file(tmp_path / "weights.safetensors")
    assert state.keys() == classifier.state_dict().keys()
    full = build_classifier(
        network.model_copy(update={"truncate": 0, "head": "linear", "head_features": "last"}),
        len(CLASSES),
        SIZE,
        seed=0,
    )
    dropped = [block.name for block in full.blocks[len(classifier.blocks) :]]
    assert len(dropped) == network.truncate
    assert not [name for name in state if any(f".{block}." in name for block in dropped)]
    initializers = onnx.load(tmp_path / "model.onnx").graph.initializer
    in_graph, in_package, in_full_network = (
        sum(map(math.prod, shapes))
        for shapes in (
            [tensor.dims for tensor in initializers],
            [tensor.shape for tensor in state.values()],
            [tensor.shape for tensor in full.state_dict().values()],
        )
    )
    assert 0.9 * in_package < in_graph < in_package + 100
    assert network.truncate == 0 or in_graph < 0.9 * in_full_network
    stored_config = TrialConfig.from_json((tmp_path / "trial.json").read_text())
    rebuilt = build_classifier(stored_config.network, len(CLASSES), SIZE, seed=0)
    rebuilt.load_state_dict(state)
    x = normalize(colored_pixels(5)[0], config.preprocessing)
    with torch.inference_mode():
        expected = rebuilt.eval()(torch.from_numpy(x)).numpy()
    assert np.abs(pyfunc_model.open_graph(tmp_path / "model.onnx")(x).logits - expected).max() < 1e-4
