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

from data import preprocess
from models import package as package_module
from models import served
from tests.models.conftest import CLASSES, Packaged


@pytest.fixture
def model(packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> served.PictureClassifier:
    """Return the pyfunc's own object, in a process that looks like no server."""
    for name in (served.MLFLOW_SERVER_MODULE, *served.SERVERS):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in served.MLFLOW_SERVER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    files = json.loads((packaged.folder / "facts.json").read_text())
    names = package_module.ARTIFACTS | {"graph": files["graph"]}
    found = served.PictureClassifier()
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
def test_probabilities_are_trainings(packaged: Packaged, model: served.PictureClassifier, count: int) -> None:
    answer = model.predict(None, pd.DataFrame({"picture": [packaged.picture.read_bytes()] * count}))
    assert list(answer.columns) == ["label", "score", *CLASSES]
    assert np.abs(probabilities(answer) - packaged.expected(count)).max() < 1e-4
    assert np.allclose(answer["score"], probabilities(answer).max(axis=1))
    assert list(answer["label"]) == [CLASSES[index] for index in probabilities(answer).argmax(axis=1)]


def test_a_picture_comes_in_any_of_its_forms(packaged: Packaged, model: served.PictureClassifier) -> None:
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


def test_bad_pictures_are_named_by_position_with_the_reason(
    packaged: Packaged, model: served.PictureClassifier, tmp_path: Path
) -> None:
    from mlflow.exceptions import MlflowException

    given = [packaged.picture, b"", b"no picture", 3.5, "no base64!", tmp_path / "absent.png", np.zeros((4, 4, 3))]
    with pytest.raises(MlflowException) as caught:
        model.predict(None, pd.DataFrame({"p": pd.Series(given, dtype=object)}))
    assert [part.partition(":")[0] for part in str(caught.value).split("; picture")] == [
        *("picture 1", *(f" {position}" for position in range(2, 7)))
    ]
    assert "picture 3: must be bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array, got float" in str(
        caught.value
    )
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_no_pictures_give_no_answers(model: served.PictureClassifier) -> None:
    answer = model.predict(None, pd.DataFrame({"p": []}))
    assert len(answer) == 0
    assert list(answer.columns) == ["label", "score", *CLASSES]


def test_classes_called_label_or_score_keep_their_columns(packaged: Packaged, model: served.PictureClassifier) -> None:
    model.labels = ["label", "score", "other"]
    answer = model.predict(None, pd.DataFrame({"p": [packaged.picture]}))
    assert list(answer.columns) == ["label", "score", "label_", "score_", "other"]


# --- paths in texts ---


def refuses_text_paths(packaged: Packaged, model: served.PictureClassifier) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        model.predict(None, pd.DataFrame({"p": [str(packaged.picture)]}))
    except MlflowException as error:
        return "for a local file give its bytes or a pathlib.Path" in str(error)
    return False


@pytest.mark.parametrize("setting", [None, True])
def test_mlflows_servers_never_open_a_texts_path(
    packaged: Packaged, model: served.PictureClassifier, monkeypatch: pytest.MonkeyPatch, setting: bool | None
) -> None:
    model.allow_paths = setting
    assert not refuses_text_paths(packaged, model)
    for variable in served.MLFLOW_SERVER_VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(variable, "true")
            assert refuses_text_paths(packaged, model)
    monkeypatch.setitem(sys.modules, served.MLFLOW_SERVER_MODULE, sys)
    assert refuses_text_paths(packaged, model)
    assert len(model.predict(None, pd.DataFrame({"p": [packaged.picture]}))) == 1


@pytest.mark.parametrize("server", served.SERVERS)
def test_other_servers_open_a_texts_path_only_by_explicit_choice(
    packaged: Packaged, model: served.PictureClassifier, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setitem(sys.modules, server, sys)
    assert refuses_text_paths(packaged, model)
    model.allow_paths = True
    assert not refuses_text_paths(packaged, model)


def test_paths_in_texts_can_be_turned_off(packaged: Packaged, model: served.PictureClassifier) -> None:
    model.allow_paths = False
    assert refuses_text_paths(packaged, model)


def test_two_packages_of_different_preprocessing_live_in_one_process(tmp_path: Path) -> None:
    source = Path(preprocess.__file__).read_text()
    first, second = tmp_path / "a" / "preprocess.py", tmp_path / "b" / "preprocess.py"
    for file, text in ((first, source), (second, f"{source}\nVERSION = 2\n")):
        file.parent.mkdir()
        file.write_text(text)
    one, two = served._load_module(first), served._load_module(second)
    assert one is served._load_module(first)
    assert not hasattr(one, "VERSION")
    assert two.VERSION == 2
    assert one.__name__ != "data.preprocess"


def test_a_picture_of_memory_and_of_disk_is_the_same(packaged: Packaged, model: served.PictureClassifier) -> None:
    buffer = io.BytesIO()
    Image.open(packaged.picture).save(buffer, "WEBP", lossless=True)
    answer = model.predict(None, pd.DataFrame({"p": [buffer.getvalue(), packaged.picture]}))
    assert np.array_equal(probabilities(answer)[0], probabilities(answer)[1])
