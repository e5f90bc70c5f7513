"""What the packaged model answers, in this process."""

from __future__ import annotations

import base64
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
from models.packaging import export as package_module
from models.packaging import pyfunc_model
from tests.models.conftest import CLASSES, Packaged


@pytest.fixture
def model(packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> pyfunc_model.ImageClassifier:
    """Return the pyfunc's own object, in a process that looks like no server."""
    for name in (pyfunc_model.MLFLOW_SERVER_MODULE, *pyfunc_model.SERVERS):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in pyfunc_model.MLFLOW_SERVER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    files = json.loads((packaged.folder / "facts.json").read_text())
    names = package_module.ARTIFACTS | {"graph": files["graph"]}
    found = pyfunc_model.ImageClassifier()
    found.load_context(Context({name: str(packaged.folder / file) for name, file in names.items()}, {}))  # type: ignore[arg-type]
    return found


@dataclass(frozen=True)
class Context:
    artifacts: dict[str, str]
    model_config: dict[str, object]


def probabilities(answer: pd.DataFrame) -> np.ndarray:
    found: np.ndarray = answer[list(CLASSES)].to_numpy()
    return found


@pytest.mark.parametrize("count", [1, 2, 5, 33])
def test_probabilities_are_trainings(packaged: Packaged, model: pyfunc_model.ImageClassifier, count: int) -> None:
    answer = model.predict(None, pd.DataFrame({"picture": [packaged.picture.read_bytes()] * count}))
    assert list(answer.columns) == ["label", "score", "error", *CLASSES]
    assert answer["error"].isna().all()
    assert np.abs(probabilities(answer) - packaged.expected(count)).max() < 1e-4
    assert np.allclose(answer["score"], probabilities(answer).max(axis=1))
    assert list(answer["label"]) == [CLASSES[index] for index in probabilities(answer).argmax(axis=1)]


def test_a_picture_comes_in_any_of_its_forms(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    content = packaged.picture.read_bytes()
    text = base64.b64encode(content).decode()
    forms = [
        *(content, bytearray(content), text, f"data:image/png;base64,{text}", f"{text[:76]}\n{text[76:]}\n"),
        *(
            packaged.picture,
            str(packaged.picture),
            Image.open(packaged.picture),
            np.asarray(Image.open(packaged.picture)),
        ),
    ]
    for given in (pd.Series(forms, dtype=object), pd.DataFrame({"any": pd.Series(forms, dtype=object)})):
        answer = model.predict(None, given)
        assert np.abs(probabilities(answer) - packaged.expected(len(forms))).max() < 1e-4


def test_one_bad_picture_is_an_error_of_its_own_row(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, tmp_path: Path
) -> None:
    bad = [b"", b"no picture", 3.5, "no base64!", tmp_path / "absent.png", np.zeros((4, 4, 3)), None, ["list"]]
    given = [packaged.picture, *bad, packaged.picture]
    answer = model.predict(None, pd.DataFrame({"p": pd.Series(given, dtype=object)}))
    rows = answer.to_dict("records")
    assert [row["error"] for row in rows] == [
        None,
        "is empty (0 bytes)",
        "is no picture that Pillow can read",
        "must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got float",
        "a text must be a picture in base64; for a local file give its bytes or a pathlib.Path",
        "does not exist",
        "must be an array of uint8 (0 to 255), got float64",
        "must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got NoneType",
        "must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got list",
        None,
    ]
    assert all(value is None for row in rows[1:-1] for name, value in row.items() if name != "error")
    good = probabilities(answer)[[0, -1]].astype(float)
    assert np.abs(good - packaged.expected(2)).max() < 1e-4
    json.dumps(rows, allow_nan=False)


def test_all_bad_pictures_are_all_errors(model: pyfunc_model.ImageClassifier) -> None:
    answer = model.predict(None, pd.DataFrame({"p": [b"", b"x"]}))
    assert list(answer["error"]) == ["is empty (0 bytes)", "is no picture that Pillow can read"]
    assert list(answer["label"]) == [None, None]


def test_a_text_or_file_that_no_camera_writes_is_refused_before_it_is_read(
    model: pyfunc_model.ImageClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyfunc_model, "MAX_TEXT_LENGTH", 1000)
    monkeypatch.setattr(base64, "b64decode", lambda *_, **__: pytest.fail("it was decoded"))
    answer = model.predict(None, pd.DataFrame({"p": pd.Series(["A" * 1001, b"A" * 1001], dtype=object)}))
    assert list(answer["error"]) == [
        "must be at most 1,000 characters of base64, got 1,001",
        "must be at most 1,000 bytes, got 1,001",
    ]


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_most_probable_classes_come_in_order(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, top_k: int
) -> None:
    answer = model.predict(None, pd.DataFrame({"p": [packaged.picture, b""]}), {"top_k": top_k})
    others = [f"{name}_{rank}" for rank in range(2, top_k + 1) for name in ("label", "score")]
    assert list(answer.columns) == ["label", "score", "error", *others]
    order = np.argsort(-packaged.expected(1)[0])
    row, bad = answer.to_dict("records")
    names = ["label", *(f"label_{rank}" for rank in range(2, top_k + 1))]
    assert [row[name] for name in names] == [CLASSES[index] for index in order[:top_k]]
    assert [row[name.replace("label", "score")] for name in names] == pytest.approx(
        packaged.expected(1)[0][order[:top_k]], abs=1e-4
    )
    assert {name: value for name, value in bad.items() if value is not None} == {"error": "is empty (0 bytes)"}


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1024])
def test_the_batch_size_changes_no_answer(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    graph, sizes = model.graph, []

    def counted(pictures: np.ndarray) -> np.ndarray:
        sizes.append(len(pictures))
        return graph(pictures)

    monkeypatch.setattr(model, "graph", counted)
    given = pd.DataFrame({"p": pd.Series([packaged.picture, b"", packaged.picture], dtype=object)})
    answer = model.predict(None, given, {"batch_size": batch_size})
    assert np.abs(probabilities(answer)[[0, 2]].astype(float) - packaged.expected(2)).max() < 1e-4
    assert list(answer["error"].notna()) == [False, True, False]
    assert max(sizes) <= batch_size


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"top_k": 4}, r"top_k must be a whole number 0\.\.3, got 4"),
        ({"top_k": -1}, r"top_k must be a whole number 0\.\.3, got -1"),
        ({"batch_size": 0}, r"batch_size must be a whole number 1\.\.1024, got 0"),
        ({"batch_size": 1e9}, "batch_size must be"),
        ({"top_k": 1.5}, "top_k must be"),
    ],
)
def test_a_parameter_out_of_range_is_a_mistake(
    model: pyfunc_model.ImageClassifier, params: dict[str, object], sentence: str
) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=sentence):
        model.predict(None, pd.DataFrame({"p": [b""]}), params)


def test_the_temperature_softens_every_answer(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    given = pd.DataFrame({"p": [packaged.picture]})
    before = probabilities(model.predict(None, given))[0]
    model.temperature = 4.0
    softer = before ** (1 / 4)
    assert probabilities(model.predict(None, given))[0] == pytest.approx(softer / softer.sum(), abs=1e-6)


def test_no_pictures_give_no_answers(model: pyfunc_model.ImageClassifier) -> None:
    answer = model.predict(None, pd.DataFrame({"p": []}))
    assert len(answer) == 0
    assert list(answer.columns) == ["label", "score", "error", *CLASSES]


def test_classes_called_as_a_column_keep_theirs(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    model.labels = ["label", "score", "error"]
    answer = model.predict(None, pd.DataFrame({"p": [packaged.picture]}))
    assert list(answer.columns) == ["label", "score", "error", "label_", "score_", "error_"]


# --- paths in texts ---


def refuses_text_paths(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> bool:
    (error,) = model.predict(None, pd.DataFrame({"p": [str(packaged.picture)]}))["error"]
    return error is not None and "for a local file give its bytes or a pathlib.Path" in error


@pytest.mark.parametrize("setting", [None, True])
def test_mlflows_servers_never_open_a_texts_path(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, monkeypatch: pytest.MonkeyPatch, setting: bool | None
) -> None:
    model.allow_paths = setting
    assert not refuses_text_paths(packaged, model)
    for variable in pyfunc_model.MLFLOW_SERVER_VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(variable, "true")
            assert refuses_text_paths(packaged, model)
    monkeypatch.setitem(sys.modules, pyfunc_model.MLFLOW_SERVER_MODULE, sys)
    assert refuses_text_paths(packaged, model)
    assert len(model.predict(None, pd.DataFrame({"p": [packaged.picture]}))) == 1


@pytest.mark.parametrize("server", pyfunc_model.SERVERS)
def test_other_servers_open_a_texts_path_only_by_explicit_choice(
    packaged: Packaged, model: pyfunc_model.ImageClassifier, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setitem(sys.modules, server, sys)
    assert refuses_text_paths(packaged, model)
    model.allow_paths = True
    assert not refuses_text_paths(packaged, model)


def test_paths_in_texts_can_be_turned_off(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    model.allow_paths = False
    assert refuses_text_paths(packaged, model)


def test_two_packages_of_different_preprocessing_live_in_one_process(tmp_path: Path) -> None:
    source = Path(preprocessing.__file__).read_text()
    first, second = tmp_path / "a" / "preprocess.py", tmp_path / "b" / "preprocess.py"
    for file, text in ((first, source), (second, f"{source}\nVERSION = 2\n")):
        file.parent.mkdir()
        file.write_text(text)
    one, two = pyfunc_model._load_module(first), pyfunc_model._load_module(second)
    assert one is pyfunc_model._load_module(first)
    assert not hasattr(one, "VERSION")
    assert two.VERSION == 2
    assert one.__name__ != "data.preprocessing"


def test_a_picture_of_memory_and_of_disk_is_the_same(packaged: Packaged, model: pyfunc_model.ImageClassifier) -> None:
    buffer = io.BytesIO()
    Image.open(packaged.picture).save(buffer, "WEBP", lossless=True)
    answer = model.predict(None, pd.DataFrame({"p": [buffer.getvalue(), packaged.picture]}))
    assert np.array_equal(probabilities(answer)[0], probabilities(answer)[1])
