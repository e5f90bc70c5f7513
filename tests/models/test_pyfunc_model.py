"""Predictions of the packaged model, loaded in this process."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data import preprocessing
from models.packaging import export as export_module
from models.packaging import pyfunc_model
from tests.models.conftest import CLASSES, Packaged


@pytest.fixture
def model(packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> pyfunc_model.ImageClassifier:
    """Return the pyfunc's Python model, loaded without a model configuration; MLflow's server is not imported."""
    monkeypatch.delitem(sys.modules, pyfunc_model.SERVER_MODULE, raising=False)
    return load(packaged)


def load(packaged: Packaged, allow_paths: bool = False) -> pyfunc_model.ImageClassifier:
    facts = json.loads((packaged.folder / "facts.json").read_text())
    artifacts = export_module.ARTIFACTS | {"graph": facts["graph"]}
    classifier = pyfunc_model.ImageClassifier()
    context = Context(
        {name: str(packaged.folder / file) for name, file in artifacts.items()}, {"allow_paths": allow_paths}
    )
    classifier.load_context(context)  # type: ignore[arg-type]
    return classifier


@dataclass(frozen=True)
class Context:
    artifacts: dict[str, str]
    model_config: dict[str, object]


def class_probabilities(frame: pd.DataFrame) -> np.ndarray:
    probabilities: np.ndarray = frame[list(CLASSES)].to_numpy()
    return probabilities


@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_probabilities_equal_those_of_training(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, count: int
) -> None:
    frame = model.predict(None, pd.DataFrame({"image": [packaged.image_file.read_bytes()] * count}))
    assert list(frame.columns) == ["label", "score", "error", *CLASSES]
    assert frame["error"].isna().all()
    assert np.abs(class_probabilities(frame) - packaged.expected(count)).max() < 1e-4
    assert np.allclose(frame["score"], class_probabilities(frame).max(axis=1))
    assert list(frame["label"]) == [CLASSES[index] for index in class_probabilities(frame).argmax(axis=1)]


def test_an_image_is_accepted_in_every_input_format(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    content = packaged.image_file.read_bytes()
    text = base64.b64encode(content).decode()
    forms = [
        *(content, bytearray(content), text, f"data:image/png;base64,{text}", f"{text[:76]}\n{text[76:]}\n"),
        *(packaged.image_file, Image.open(packaged.image_file), np.asarray(Image.open(packaged.image_file))),
    ]
    for model_input in (pd.Series(forms, dtype=object), pd.DataFrame({"any": pd.Series(forms, dtype=object)})):
        frame = model.predict(None, model_input)
        assert np.abs(class_probabilities(frame) - packaged.expected(len(forms))).max() < 1e-4


def test_an_unreadable_image_sets_the_error_of_its_own_row_only(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, tmp_path: Path
) -> None:
    unreadable = [
        b"",
        b"not an image",
        3.5,
        "no base64!",
        tmp_path / "missing.png",
        np.zeros((4, 4, 3)),
        None,
        ["list"],
    ]
    inputs = [packaged.image_file, *unreadable, packaged.image_file]
    frame = model.predict(None, pd.DataFrame({"p": pd.Series(inputs, dtype=object)}))
    rows = frame.to_dict("records")
    assert [row["error"] for row in rows] == [
        None,
        "is empty (0 bytes)",
        "is not an image that Pillow can read",
        "must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got float",
        "a string must be a base64-encoded image; for a local file pass its bytes or a pathlib.Path",
        "does not exist",
        "must be an array of uint8 (0 to 255), got float64",
        "must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got NoneType",
        "must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got list",
        None,
    ]
    assert all(value is None for row in rows[1:-1] for name, value in row.items() if name != "error")
    readable = class_probabilities(frame)[[0, -1]].astype(float)
    assert np.abs(readable - packaged.expected(2)).max() < 1e-4
    json.dumps(rows, allow_nan=False)


def test_a_batch_of_unreadable_images_has_only_errors(model: pyfunc_model.ImageClassifier) -> None:
    frame = model.predict(None, pd.DataFrame({"p": [b"", b"x"]}))
    assert list(frame["error"]) == ["is empty (0 bytes)", "is not an image that Pillow can read"]
    assert list(frame["label"]) == [None, None]


def test_too_large_inputs_are_rejected_before_they_are_decoded(
    model: pyfunc_model.ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyfunc_model, "MAX_TEXT_LENGTH", 1000)
    monkeypatch.setattr(base64, "b64decode", lambda *_, **__: pytest.fail("the text was decoded"))
    frame = model.predict(None, pd.DataFrame({"p": pd.Series(["A" * 1001, b"A" * 1001], dtype=object)}))
    assert list(frame["error"]) == [
        "must be at most 1,000 characters of base64, got 1,001",
        "must be at most 1,000 bytes, got 1,001",
    ]


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_returns_the_most_probable_classes_in_order(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, top_k: int
) -> None:
    frame = model.predict(None, pd.DataFrame({"p": [packaged.image_file, b""]}), {"top_k": top_k})
    extra_columns = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("label", "score")]
    assert list(frame.columns) == ["label", "score", "error", *extra_columns]
    order = np.argsort(-packaged.expected(1)[0])
    row, failed_row = frame.to_dict("records")
    names = ["label", *(f"label_{rank}" for rank in range(2, top_k + 1))]
    assert [row[name] for name in names] == [CLASSES[index] for index in order[:top_k]]
    assert [row[name.replace("label", "score")] for name in names] == pytest.approx(
        packaged.expected(1)[0][order[:top_k]], abs=1e-4
    )
    assert {name: value for name, value in failed_row.items() if value is not None} == {"error": "is empty (0 bytes)"}


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1024])
def test_the_batch_size_does_not_change_predictions(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    graph, sizes = model.graph, []

    def record_batch_size(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return graph(images)

    monkeypatch.setattr(model, "graph", record_batch_size)
    model_input = pd.DataFrame({"p": pd.Series([packaged.image_file, b"", packaged.image_file], dtype=object)})
    frame = model.predict(None, model_input, {"batch_size": batch_size})
    assert np.abs(class_probabilities(frame)[[0, 2]].astype(float) - packaged.expected(2)).max() < 1e-4
    assert list(frame["error"].notna()) == [False, True, False]
    assert max(sizes) <= batch_size


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"top_k": 4}, "top_k must be a whole number from 0 to 3, got 4"),
        ({"top_k": -1}, "top_k must be a whole number from 0 to 3, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 to 1024, got 0"),
        ({"batch_size": 1e9}, "batch_size must be"),
        ({"top_k": 1.5}, "top_k must be"),
    ],
)
def test_a_parameter_out_of_range_is_rejected(
    model: pyfunc_model.ImageClassifier, params: dict[str, object], message: str
) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=message):
        model.predict(None, pd.DataFrame({"p": [b""]}), params)


def test_the_temperature_is_applied_to_the_logits(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    model_input = pd.DataFrame({"p": [packaged.image_file]})
    before = class_probabilities(model.predict(None, model_input))[0]
    model.temperature = 4.0
    scaled = before ** (1 / 4)
    assert class_probabilities(model.predict(None, model_input))[0] == pytest.approx(scaled / scaled.sum(), abs=1e-6)


def test_an_empty_input_gives_an_empty_output(model: pyfunc_model.ImageClassifier) -> None:
    frame = model.predict(None, pd.DataFrame({"p": []}))
    assert len(frame) == 0
    assert list(frame.columns) == ["label", "score", "error", *CLASSES]


def test_classes_named_like_a_reserved_column_get_an_underscore(
    packaged: Packaged, model: pyfunc_model.ImageClassifier
) -> None:
    model.labels = ["label", "score", "error"]
    frame = model.predict(None, pd.DataFrame({"p": [packaged.image_file]}))
    assert list(frame.columns) == ["label", "score", "error", "label_", "score_", "error_"]


# --- paths in text inputs ---


def opens_path(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> bool:
    """Return whether a str with the path of an image is read as a file; otherwise it must be refused."""
    (error,) = model.predict(None, pd.DataFrame({"p": [str(packaged.image_file)]}), {"allow_paths": True})["error"]
    assert error is None or "for a local file pass its bytes or a pathlib.Path" in error
    return error is None


def test_a_text_is_a_path_only_if_the_model_was_loaded_so(
    packaged: Packaged, model: pyfunc_model.ImageClassifier
) -> None:
    assert not opens_path(packaged, model)
    assert opens_path(packaged, load(packaged, allow_paths=True))


def test_with_paths_allowed_other_texts_are_still_base64(packaged: Packaged, tmp_path: Path) -> None:
    text = base64.b64encode(packaged.image_file.read_bytes()).decode()
    texts = [text, str(tmp_path / "missing.png"), "a\0b", "A" * 100_000]
    errors = list(load(packaged, allow_paths=True).predict(None, pd.DataFrame({"p": texts}))["error"])
    assert errors[0] is None
    assert all(errors[1:])


def test_the_environment_cannot_allow_paths(packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv(pyfunc_model.CONFIG_VARIABLE, '{"allow_paths": true}')
    (error,) = mlflow.pyfunc.load_model(str(packaged.model)).predict([str(packaged.image_file)])["error"]
    assert "a string must be a base64-encoded image" in error


def test_mlflow_servers_never_open_a_path(packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(packaged, allow_paths=True)
    monkeypatch.setitem(sys.modules, pyfunc_model.SERVER_MODULE, sys)
    assert not opens_path(packaged, model)
    assert list(model.predict(None, pd.DataFrame({"p": [packaged.image_file]}))["error"]) == [None]


def test_packages_with_different_preprocessing_code_coexist_in_one_process(tmp_path: Path) -> None:
    source = Path(preprocessing.__file__).read_text()
    first, second = tmp_path / "a" / "preprocess.py", tmp_path / "b" / "preprocess.py"
    for file, text in ((first, source), (second, f"{source}\nVERSION = 2\n")):
        file.parent.mkdir()
        file.write_text(text)
    first_module, second_module = pyfunc_model._load_module(first), pyfunc_model._load_module(second)
    assert first_module is pyfunc_model._load_module(first)
    assert not hasattr(first_module, "VERSION")
    assert second_module.VERSION == 2
    assert first_module.__name__ != "data.preprocessing"


def test_bytes_and_files_give_the_same_prediction(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    buffer = io.BytesIO()
    Image.open(packaged.image_file).save(buffer, "WEBP", lossless=True)
    frame = model.predict(None, pd.DataFrame({"p": [buffer.getvalue(), packaged.image_file]}))
    assert np.array_equal(class_probabilities(frame)[0], class_probabilities(frame)[1])


def test_the_range_of_the_data_set_is_that_of_every_prediction(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, tmp_path: Path
) -> None:
    Image.fromarray(np.tile(np.linspace(0, 1023, 32).astype(np.uint16), (32, 1))).save(tmp_path / "10 bits.png")
    content = (tmp_path / "10 bits.png").read_bytes()
    (dark,) = model._load_pixels(content)
    facts_file = packaged.folder / "facts.json"
    facts = json.loads(facts_file.read_text())
    facts["preprocessings"][0]["value_range"] = [0, 1023]
    (tmp_path / "package").mkdir()
    for file in packaged.folder.iterdir():
        (tmp_path / "package" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "package" / "facts.json").write_text(json.dumps(facts))
    (bright,) = load(dataclasses.replace(packaged, folder=tmp_path / "package"))._load_pixels(content)
    assert dark.max() < 8
    assert bright.max() > 230
