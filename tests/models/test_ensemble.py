"""An ensemble in one package: the weighted mean of the probabilities of its networks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from data.loading.batch_config import BatchConfig
from data.preprocessing import Pixels, Preprocessing, normalize, read_image, to_pixels
from models.classifier import build_classifier
from models.evaluation.ensemble import combine_logits
from models.packaging import pyfunc_model
from models.packaging.ensemble import Ensemble
from models.packaging.export import PackageFacts, PackageMember, distinct_preprocessings, export_package
from models.packaging.mlflow_model import load_checkpoint, save_package
from models.profiling.serving_cost import latency_ms
from models.trial_config import FitConfig, NetworkConfig, TrialConfig
from tests.models.conftest import CLASSES

FACTS = PackageFacts(labels=CLASSES, data_fingerprint="fingerprint")
SMALL, LARGE = Preprocessing(16, mean=(0.5, 0.5, 0.5)), Preprocessing(32)


def member(preprocessing: Preprocessing, weight: float, seed: int) -> PackageMember:
    """Return a member with random weights, large enough that its probabilities differ from those of others."""
    network = NetworkConfig(backbone="small_cnn", weights="none")
    fit = FitConfig()
    config = TrialConfig(seed=seed, preprocessing=preprocessing, batches=BatchConfig(), network=network, fit=fit)
    classifier = build_classifier(network, len(CLASSES), preprocessing.image_size, seed)
    with torch.no_grad():
        for parameter in classifier.head.parameters():
            parameter.mul_(20)
    return PackageMember(classifier, config, weight)


def images(count: int = 5) -> list[Image.Image]:
    """Return noise images of 50 x 40 pixels."""
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)) for _ in range(count)]


def resized(members: list[PackageMember]) -> list[Pixels]:
    preprocessings = distinct_preprocessings(each.config for each in members)
    return [np.stack([to_pixels(image, each) for image in images()]) for each in preprocessings]


def expected(members: list[PackageMember], inputs: list[Image.Image]) -> np.ndarray:
    """Return the weighted mean of the probabilities [n, k] of each network."""
    total = np.zeros((len(inputs), len(CLASSES)))
    for classifier, config, weight in members:
        pixels = np.stack([to_pixels(image, config.preprocessing) for image in inputs])
        with torch.inference_mode():
            logits = classifier.eval()(torch.from_numpy(normalize(pixels, config.preprocessing)))
        total += weight * logits.double().softmax(dim=1).numpy()
    return total


def graph_inputs(members: list[PackageMember], count: int) -> list[np.ndarray]:
    preprocessings = distinct_preprocessings(each.config for each in members)
    pairs = zip(resized(members), preprocessings, strict=True)
    return [np.ascontiguousarray(normalize(pixels[:count], each)) for pixels, each in pairs]


@pytest.fixture(scope="module")
def two_sizes() -> list[PackageMember]:
    return [member(LARGE, 0.75, seed=1), member(SMALL, 0.25, seed=2)]


@pytest.fixture(scope="module")
def package(two_sizes: list[PackageMember], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported package of the two networks, with its MLflow model in the folder ``model`` beside it."""
    folder = tmp_path_factory.mktemp("ensemble") / "package"
    result = export_package(two_sizes, FACTS, resized(two_sizes), folder)
    assert (result.graph, result.notes, result.num_checked_images) == ("model.onnx", (), 5)
    save_package(folder, folder.with_name("model"))
    return folder


# --- the combined logits ---


def test_the_logits_are_those_of_the_weighted_mean_and_stay_finite() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(4, 3)), 1000 * rng.normal(size=(4, 3))]
    combined = combine_logits(logits, [0.75, 0.25])
    probabilities = [np.exp(each - each.max(axis=1, keepdims=True)) for each in logits]
    first, second = (each / each.sum(axis=1, keepdims=True) for each in probabilities)
    assert np.exp(combined) == pytest.approx(0.75 * first + 0.25 * second)
    certain = np.array([[2000.0, 0.0], [0.0, 2000.0]])
    assert combine_logits([certain, certain], [0.5, 0.5]) == pytest.approx(np.array([[0.0, -2000], [-2000, 0]]))


def test_a_single_network_keeps_its_logits() -> None:
    logits = np.array([[1.0, 2.0]])
    assert combine_logits([logits], [1.0]) is logits


def test_networks_that_read_the_same_input_are_combined_in_torch_as_in_numpy() -> None:
    networks = [torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), torch.nn.Linear(2, 3)]
    first, second = torch.randn(5, 4), torch.randn(5, 2)
    with torch.no_grad():
        actual = Ensemble(networks, [0, 0, 1], [0.5, 0.3, 0.2])(first, second).numpy()
        outputs = [network(x).double().numpy() for network, x in zip(networks, (first, first, second), strict=True)]
    assert actual == pytest.approx(combine_logits(outputs, [0.5, 0.3, 0.2]), abs=1e-5)


# --- the graph ---


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_graph_of_networks_with_different_sizes_gives_the_mean_of_their_probabilities(
    two_sizes: list[PackageMember], package: Path, count: int
) -> None:
    logits = pyfunc_model.open_graph(package / "model.onnx")(*graph_inputs(two_sizes, count)).logits
    assert np.exp(logits) == pytest.approx(expected(two_sizes, images(count)), abs=1e-5)
    graph = onnx.load(package / "model.onnx").graph
    shapes = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in graph.input
    }
    assert shapes == {"images_0": ["b", 3, 32, 32], "images_1": ["b", 3, 16, 16]}
    assert [each.name for each in graph.output] == ["logits"]


def test_networks_with_equal_preprocessing_share_an_input(tmp_path: Path) -> None:
    members = [member(SMALL, 0.6, seed=1), member(SMALL, 0.4, seed=2)]
    export_package(members, FACTS, resized(members), tmp_path)
    assert [each.name for each in onnx.load(tmp_path / "model.onnx").graph.input] == ["images"]
    assert json.loads((tmp_path / "facts.json").read_text())["preprocessings"] == [SMALL.to_dict()]
    graph = pyfunc_model.open_graph(tmp_path / "model.onnx")
    for count in (1, 5):
        logits = graph(*graph_inputs(members, count)).logits
        assert np.exp(logits) == pytest.approx(expected(members, images(count)), abs=1e-5)


def test_an_ensemble_that_onnx_does_not_support_is_packaged_with_torch_export(
    two_sizes: list[PackageMember], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert export_package(two_sizes, FACTS, resized(two_sizes), tmp_path).graph == "model.pt2"
    graph = pyfunc_model.open_graph(tmp_path / "model.pt2")
    for count in (1, 5):
        logits = graph(*graph_inputs(two_sizes, count)).logits
        assert np.exp(logits) == pytest.approx(expected(two_sizes, images(count)), abs=1e-5)


def test_the_latency_is_measured_with_all_inputs(package: Path) -> None:
    assert latency_ms(package / "model.onnx") > 0


# --- the package ---


def test_the_preprocessings_are_in_the_order_of_the_inputs(package: Path) -> None:
    facts = json.loads((package / "facts.json").read_text())
    assert facts["preprocessings"] == [LARGE.to_dict(), SMALL.to_dict()]


def test_training_can_continue_from_each_network(two_sizes: list[PackageMember], package: Path) -> None:
    loaded = load_checkpoint(package.with_name("model").as_uri())
    assert loaded.classes == CLASSES
    assert [(each.config, each.weight) for each in loaded.members] == [(each.config, each.weight) for each in two_sizes]
    for restored, original in zip(loaded.members, two_sizes, strict=True):
        state = original.classifier.state_dict()
        assert restored.classifier.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in restored.classifier.state_dict().items())


CLIENT = """
import json, sys
from pathlib import Path
sys.modules.update(dict.fromkeys(("data", "models", "tuning", "freezeline")))  # they cannot be imported
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
files = [Path(file) for file in sys.argv[2:]]
frame = model.predict([files[0], b"no image", *files[1:]])
assert "torch" not in sys.modules, "torch was imported"
print(json.dumps(frame.to_dict("records")))
"""


def test_the_package_predicts_in_a_clean_process_and_an_unreadable_image_has_its_own_error(
    two_sizes: list[PackageMember], package: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, image in zip(files, images(3), strict=True):
        image.save(file)
    (tmp_path / "empty").mkdir()
    process = subprocess.run(
        [sys.executable, "-I", "-c", CLIENT, str(package.with_name("model")), *map(str, files)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path / "empty",
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
    )
    assert process.returncode == 0, process.stderr
    first, unreadable, *others = json.loads(process.stdout)
    assert unreadable.pop("error") == "is not an image that Pillow can read"
    assert set(unreadable.values()) == {None}
    probabilities = [[row[label] for label in CLASSES] for row in (first, *others)]
    assert np.array(probabilities) == pytest.approx(expected(two_sizes, images(3)), abs=1e-5)


def test_an_image_is_decoded_once_for_all_inputs(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(package.with_name("model")))
    preprocess, decoded = model.unwrap_python_model().preprocess, []

    def count(source: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
        decoded.append(source)
        return read_image(source, value_range)

    monkeypatch.setattr(preprocess, "read_image", count)
    model.predict(images(3))
    assert len(decoded) == 3
