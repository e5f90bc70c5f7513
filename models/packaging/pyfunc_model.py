"""The packaged classifier as MLflow loads it (models from code): it imports nothing of the project that made it.

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    model.predict([open("cat.jpg", "rb").read(), pathlib.Path("dog.png")])

A picture is one element of a list, a pandas Series, or a DataFrame's only column, each of:

* bytes: the content of a picture file of any format that Pillow reads;
* str: the same in base64, with or without ``data:image/...;base64,`` before it; what JSON and CSV requests carry;
* pathlib.Path: a local file. No request can hold one, so this always means the caller's own choice;
* str: the path of a local file, see below;
* PIL.Image.Image;
* numpy.ndarray: uint8 [height, width, 3]; in a Series or DataFrame, since MLflow itself refuses lists of arrays.

A str is never taken for a path in a process that serves: MLflow's scoring servers are told by the module or the
variables that they set, other servers by their module (``SERVERS``). Otherwise a str that names an existing file is
that file. ``load_model(..., model_config={"allow_paths": False})`` turns paths in a str off altogether, and
``True`` turns them on where another server's module is merely loaded; under MLflow's servers they stay off.

The answer is a DataFrame, a row for each picture in order: ``label``, ``compute_metrics`` (the label's probability), ``error``,
and a column for each class with its probability; a class that is called like one of the first three gets an underscore
behind its column's name. A picture that can't be read has its reason in ``error`` and nothing else in its row; the
others are answered all the same.

``model.predict(pictures, params={...})`` takes:

* ``top_k``: instead of a column for each class, ``label_2``, ``score_2``, ... for that many most probable classes in
  all; 0, the default, is every class;
* ``batch_size``: how many pictures are computed at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow.models
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

Floats = npt.NDArray[np.float32]
Graph = Callable[[Floats], Floats]

BATCH_SIZE = 32  # pictures that are computed, and in memory as numbers, at once
MAX_INPUTS = 1024
MAX_PATH_LENGTH = 4096  # characters; a longer text is a picture
MAX_TEXT_LENGTH = 2**27  # characters of base64, or bytes of a file: 128 MB, more than any camera writes
RESERVED_COLUMNS = ("label", "score", "error")
MLFLOW_SERVER_VARIABLES = ("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "__pyfunc_model_path__", "SERVING_MODEL_CONFIG")
MLFLOW_SERVER_MODULE = "mlflow.pyfunc.scoring_server"  # load_model and predict don't import it
SERVERS = (
    "uvicorn",
    "gunicorn",
    "hypercorn",
    "waitress",
    "daphne",
    "granian",
    "werkzeug.serving",
    "bentoml",
    "ray.serve",
    "sanic",
)


def open_graph(file: Path) -> Graph:
    """Return what turns normalized pictures float32 [b, 3, s, s] into logits [b, k]."""
    if file.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pictures: np.asarray(session.run(None, {name: pictures})[0])
    import torch

    network = torch.export.load(file).module()

    def run(pictures: Floats) -> Floats:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(pictures)).numpy())

    return run


class ImageClassifier(PythonModel):
    """Pictures in, labels and probabilities out; the module's docstring says in which form."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the package's files."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        facts = json.loads(files["facts"].read_text(encoding="utf-8"))
        self.labels: list[str] = facts["labels"]
        self.temperature: float = facts["temperature"]
        self.preprocess = _load_module(files["preprocess"])
        self.preprocessing = self.preprocess.Preprocessing.from_dict(facts["preprocessing"])
        self.graph = open_graph(files["graph"])
        self.allow_paths: bool | None = (context.model_config or {}).get("allow_paths")

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return label, score and every class's probability for each picture, in order, or why it can't be read.

        Raises:
            MlflowException: a parameter that is out of its range.
        """
        given = params or {}
        top_k = _check_int("top_k", given.get("top_k", 0), 0, len(self.labels))
        batch_size = _check_int("batch_size", given.get("batch_size", BATCH_SIZE), 1, MAX_INPUTS)
        elements = list(_elements(model_input))
        parts = [self._batch(elements[start : start + batch_size]) for start in range(0, len(elements), batch_size)]
        problems = [problem for _, found in parts for problem in found]
        probabilities = np.concatenate([np.zeros((0, len(self.labels))), *(rows for rows, _ in parts)])
        answer = self._best(probabilities, top_k) if top_k else self._every(probabilities)
        answer.insert(0, "label", [self.labels[index] for index in probabilities.argmax(axis=1)])
        answer.insert(1, "score", probabilities.max(axis=1, initial=0.0))
        answer.insert(2, "error", pd.Series(problems, dtype=object))
        return _blank_failed_rows(answer)

    def _batch(self, elements: list[object]) -> tuple[npt.NDArray[np.float64], list[str | None]]:
        """Return the probabilities [b, k] of pictures, 0 for those that can't be read, and the reasons."""
        pixels: dict[int, npt.NDArray[np.uint8]] = {}
        problems: list[str | None] = [None] * len(elements)
        for position, element in enumerate(elements):
            try:
                pixels[position] = self._pixels(element)
            except ValueError as error:
                problems[position] = str(error)
        probabilities = np.zeros((len(elements), len(self.labels)))
        if pixels:
            pictures = self.preprocess.normalize(np.stack(list(pixels.values())), self.preprocessing)
            logits = self.graph(np.ascontiguousarray(pictures)).astype(np.float64) / self.temperature
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities[list(pixels)] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities, problems

    def _pixels(self, element: object) -> npt.NDArray[np.uint8]:
        source = self._from_text(element) if isinstance(element, str) else element
        if isinstance(source, (bytearray, memoryview)):
            source = bytes(source)
        if not isinstance(source, (bytes, Path, Image.Image, np.ndarray)):
            kinds = "bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array"
            raise ValueError(f"must be {kinds}, got {type(source).__name__}")
        if isinstance(source, bytes) and len(source) > MAX_TEXT_LENGTH:
            raise ValueError(f"must be at most {MAX_TEXT_LENGTH:,} bytes, got {len(source):,}")
        image = self.preprocess.read_image(source)
        return np.asarray(self.preprocess.to_pixels(image, self.preprocessing))

    def _from_text(self, text: str) -> bytes | Path:
        if paths_allowed(self.allow_paths) and (path := _existing_file(text)):
            return path
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"must be at most {MAX_TEXT_LENGTH:,} characters of base64, got {len(text):,}")
        content = text.partition(",")[2] if text.startswith("data:") else text
        try:
            return base64.b64decode("".join(content.split()), validate=True)
        except (binascii.Error, ValueError):
            reason = "a text must be a picture in base64; for a local file give its bytes or a pathlib.Path"
            raise ValueError(reason) from None

    def _every(self, probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
        """Return a column for each class."""
        columns = [f"{label}_" if label in RESERVED_COLUMNS else label for label in self.labels]
        return pd.DataFrame(probabilities, columns=columns)

    def _best(self, probabilities: npt.NDArray[np.float64], top_k: int) -> pd.DataFrame:
        """Return label_2, score_2, ... of the ``top_k`` most probable classes; the first is label and score."""
        order = np.argsort(-probabilities, axis=1, kind="stable")
        answer = pd.DataFrame(index=range(len(probabilities)))
        for rank in range(1, top_k):
            answer[f"label_{rank + 1}"] = [self.labels[index] for index in order[:, rank]]
            answer[f"score_{rank + 1}"] = np.take_along_axis(probabilities, order[:, rank : rank + 1], axis=1)[:, 0]
        return answer


def _blank_failed_rows(answer: pd.DataFrame) -> pd.DataFrame:
    """Return the answer with nothing but the error in the rows that have one: None, which is null in JSON."""
    bad = answer["error"].notna()
    if not bad.any():
        return answer
    said = answer.drop(columns="error").astype(object)
    said[bad] = None
    said.insert(2, "error", answer["error"])
    return said


def _check_int(name: str, value: Any, least: int, most: int) -> int:  # noqa: ANN401  (whatever the caller gave)
    if isinstance(value, bool) or int(value) != value or not least <= value <= most:
        raise MlflowException.invalid_parameter_value(f"{name} must be a whole number {least}..{most}, got {value}")
    return int(value)


def paths_allowed(allow_paths: bool | None) -> bool:
    """Tell whether a str may name a local file in this process; see the module's docstring."""
    if MLFLOW_SERVER_MODULE in sys.modules or any(os.environ.get(name) for name in MLFLOW_SERVER_VARIABLES):
        return False
    return not any(name in sys.modules for name in SERVERS) if allow_paths is None else allow_paths


def _existing_file(text: str) -> Path | None:
    try:
        return Path(text) if len(text) <= MAX_PATH_LENGTH and Path(text).is_file() else None
    except (OSError, ValueError):  # a name that is too long, or holds a zero character
        return None


def _elements(model_input: Any) -> Iterator[Any]:  # noqa: ANN401  (MLflow hands over what the caller gave)
    if isinstance(model_input, pd.DataFrame):
        model_input = model_input.iloc[:, 0]
    yield from model_input


def _load_module(file: Path) -> ModuleType:
    """Load a file as a module of a private name: another package in this process may carry another version of it."""
    name = f"_packaged_preprocess_{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} can't be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


mlflow.models.set_model(ImageClassifier())
