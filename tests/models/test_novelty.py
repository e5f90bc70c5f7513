"""Novelty: the distance of an image from the training images, its calibration, and its place in a package."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from sklearn.metrics import roc_auc_score

from data.errors import TrackingError
from data.preprocessing import normalize
from models.evaluation import novelty as novelty_module
from models.evaluation.novelty import Arrays, fit_novelty, save_arrays, unseen_class_auroc
from models.evaluation.novelty_score import NoveltyScorer, unit_length
from models.packaging import pyfunc_model
from models.packaging.export import ARTIFACTS, OPTIONAL_ARTIFACTS, export_graph
from models.packaging.inference import predict_files
from models.packaging.mlflow_model import save_package
from tests.models.conftest import CLASSES, Packaged, colored_pixels

WIDTH = 12


def clusters(count: int, seed: int, classes: tuple[int, ...] = (0, 1, 2)) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, 12] around a center for each class, and labels [n]."""
    generator = np.random.default_rng(seed)
    centers = 3 * np.random.default_rng(0).normal(size=(3, WIDTH))
    labels = generator.choice(classes, count)
    scales = np.linspace(1.0, 0.1, WIDTH)
    return centers[labels] + scales * generator.normal(size=(count, WIDTH)), labels


@pytest.fixture
def arrays() -> Arrays:
    fitted = fit_novelty(*clusters(400, seed=1), clusters(300, seed=2)[0])
    assert fitted is not None
    return fitted


def test_the_distance_is_that_of_mahalanobis_with_the_stored_covariance(arrays: Mapping[str, Any]) -> None:
    scorer = NoveltyScorer(arrays)
    directions = np.linalg.qr(scorer.directions)[0] * np.sign(np.diag(np.linalg.qr(scorer.directions)[1]))
    complement = np.eye(WIDTH) - directions @ directions.T
    inverse = directions @ np.diag(1 / scorer.variances) @ directions.T + complement / scorer.rest_variance
    x, _ = clusters(20, seed=3)
    centered = unit_length(x)[:, None] - scorer.means[None]
    expected = np.einsum("nkf,fg,nkg->nk", centered, inverse, centered)
    assert scorer.distances(x) == pytest.approx(expected, rel=0.02)


def test_the_novelty_is_the_share_of_nearer_held_out_images(arrays: Mapping[str, Any]) -> None:
    novelty = NoveltyScorer(arrays).novelty(clusters(5000, seed=4)[0])
    for share in (0.5, 0.9, 0.99):
        assert (novelty > share).mean() == pytest.approx(1 - share, abs=0.02 if share > 0.95 else 0.05)
    assert novelty.min() > 0
    assert novelty.max() < 1


def test_images_farther_than_all_held_out_ones_still_differ(arrays: Mapping[str, Any]) -> None:
    scorer = NoveltyScorer(arrays)
    far = np.random.default_rng(0).normal(size=(50, WIDTH))
    distances, novelty = scorer.distances(far).min(axis=1), scorer.novelty(far)
    order = np.argsort(distances)
    assert (np.diff(novelty[order]) >= 0).all()
    known = scorer.novelty(clusters(500, seed=5)[0])
    assert roc_auc_score([0] * 500 + [1] * 50, [*known, *novelty]) > 0.9


def test_too_few_images_and_too_many_classes_have_no_novelty(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = clusters(400, seed=1)
    assert fit_novelty(x[:3], labels[:3], x) is None
    assert fit_novelty(x, labels, x[:0]) is None
    monkeypatch.setattr(novelty_module, "MAX_BYTES", 100)
    assert fit_novelty(x, labels, x) is None


def test_separate_classes_would_be_noticed_if_they_were_unknown(arrays: Mapping[str, Any]) -> None:
    x, labels = clusters(300, seed=6)
    auroc = unseen_class_auroc(NoveltyScorer(arrays).distances(x), labels)
    assert auroc is not None
    assert auroc > 0.95
    assert unseen_class_auroc(np.ones((3, 1)), np.zeros(3, dtype=np.int64)) is None


# --- in a package ---


@pytest.fixture(scope="module")
def with_novelty(packaged: Packaged, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    """Return the package of the tests again, with novelty."""
    folder = tmp_path_factory.mktemp("novelty")
    pixels, labels = colored_pixels(60)
    result = export_graph([packaged.member], [pixels], folder, with_features=True)
    for name in ("facts", "preprocess", "novelty", "recording"):
        (folder / ARTIFACTS[name]).write_bytes((packaged.folder / ARTIFACTS[name]).read_bytes())
    graph = pyfunc_model.open_graph(folder / result.graph)
    features = graph(normalize(pixels, packaged.config.preprocessing)).features
    assert features is not None
    arrays = fit_novelty(features[:40].astype(np.float64), labels[:40], features[40:].astype(np.float64))
    assert arrays is not None
    save_arrays(folder / OPTIONAL_ARTIFACTS["novelty_levels"], arrays)
    save_package(folder, folder / "mlflow")
    return dataclasses.replace(packaged, folder=folder, model=folder / "mlflow")


def test_the_second_output_of_the_graph_are_the_features_of_the_network(with_novelty: Packaged) -> None:
    names = [each.name for each in onnx.load(with_novelty.folder / "model.onnx").graph.output]
    assert names == ["logits", "features"]
    x = normalize(colored_pixels(5)[0], with_novelty.config.preprocessing)
    with torch.inference_mode():
        expected = with_novelty.classifier.eval().network(torch.from_numpy(x)).numpy()
    for count in (1, 5):
        features = pyfunc_model.open_graph(with_novelty.folder / "model.onnx")(x[:count]).features
        assert features is not None
        assert np.abs(features - expected[:count]).max() < 1e-4


def test_a_package_with_novelty_returns_it_and_rejects(with_novelty: Packaged) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(with_novelty.model))
    images = [with_novelty.image_file.read_bytes(), b"broken"]
    frame = model.predict(images)
    assert list(frame.columns) == ["label", "score", "error", "novelty", *CLASSES]
    novelty = frame["novelty"][0]
    assert 0 < novelty < 1
    assert frame["novelty"][1] is None
    assert frame["label"][0] in CLASSES
    rejected = model.predict(images, params={"reject": novelty / 2})
    assert list(rejected["label"]) == ["", None]
    assert rejected["score"][0] == frame["score"][0]
    assert list(model.predict(images, params={"reject": (1 + novelty) / 2})["label"]) == list(frame["label"])


def test_files_are_predicted_with_novelty_and_an_empty_label_if_rejected(with_novelty: Packaged) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(with_novelty.model))
    (kept,) = predict_files(model, [with_novelty.image_file])
    assert kept.novelty is not None
    assert kept.label
    (rejected,) = predict_files(model, [with_novelty.image_file], reject=kept.novelty / 2)
    assert (rejected.label, rejected.probabilities) == ("", kept.probabilities)


def test_predicting_files_refuses_reject_without_novelty(packaged: Packaged) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(packaged.model))
    with pytest.raises(TrackingError, match=r"packaged without novelty, got 0\.5; leave it out, or search again"):
        next(predict_files(model, [packaged.image_file], reject=0.5))


@pytest.mark.parametrize("value", [0.0, 1.5, True])
def test_reject_is_a_share(packaged: Packaged, value: float) -> None:
    import mlflow

    python_model = mlflow.pyfunc.load_model(str(packaged.model)).unwrap_python_model()
    with pytest.raises(MlflowException, match="reject must be above 0 and at most 1"):
        python_model.predict(None, pd.DataFrame({"image": [b""]}), {"reject": value})


def test_a_package_without_novelty_rejects_nothing(packaged: Packaged) -> None:
    import mlflow

    with pytest.raises(MlflowException, match=r"packaged without novelty, got 0\.5"):
        mlflow.pyfunc.load_model(str(packaged.model)).predict([b""], params={"reject": 0.5})


def test_the_facts_identify_the_package(packaged: Packaged, tmp_path: Path) -> None:
    facts = json.loads((packaged.folder / "facts.json").read_text())
    assert len(facts["package_id"]) == 16
