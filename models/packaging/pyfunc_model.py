"""The packaged classifier as loaded by MLflow (models from code); it imports nothing from the project that made it.

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    model.predict([open("cat.jpg", "rb").read(), pathlib.Path("dog.png")])

The input is a list, a pandas Series, or a DataFrame with a single column. Each element is one image:

* bytes: the content of an image file in any format that Pillow reads;
* str: the same in base64, with or without a ``data:image/...;base64,`` prefix; used by JSON and CSV requests;
* pathlib.Path: a local file; a request cannot contain one, so it is always the caller's own choice;
* PIL.Image.Image;
* numpy.ndarray: uint8 [height, width, 3]; only in a Series or DataFrame, since MLflow rejects lists of arrays.

A str that names an existing file is read as that file only if the model was loaded with
``load_model(..., model_config={"allow_paths": True})``. Neither a request's parameters nor environment variables can
allow paths, and under MLflow's scoring servers they are never allowed.

The output is a DataFrame with one row per image, in order: ``label``, ``score`` (probability of the label), ``error``,
``novelty`` (see ``novelty.py``; only if the package has it), and a column for each class with its probability. If a
class has the name of one of the first columns, an underscore is appended to its column name. The row of an unreadable
image contains only the reason in ``error``; the other images are predicted as usual.

``model.predict(images, params={...})`` accepts:

* ``reject``: the label of an image whose novelty is above this number is empty: 0.99 keeps 99% of images like the
  validation images; 1 (the default) keeps all;
* ``top_k``: return ``label_2``, ``score_2``, ... up to the ``top_k`` most probable classes, instead of a column for
  each class; 0 (the default) returns all classes;
* ``batch_size``: number of images per batch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import mlflow.models
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

Floats = npt.NDArray[np.float32]
Source = bytes | Path | Image.Image | npt.NDArray[Any]  # of one image

BATCH_SIZE = 32
MAX_BATCH_SIZE = 1024
KEEP_ALL = 1.0  # the parameter ``reject`` that rejects no image
MAX_TEXT_LENGTH = 2**27  # characters of base64, or bytes of a file: 128 MB, more than cameras write
RESERVED_COLUMNS = ("label", "score", "error", "novelty")
SERVER_MODULE = "mlflow.pyfunc.scoring_server"  # of all MLflow's servers; not imported by load_model or predict
CONFIG_VARIABLE = "MLFLOW_PYFUNC_INFERENCE_CONFIG"  # JSON that MLflow merges into every model_config


class GraphOutputs(NamedTuple):
    """The outputs of a graph: logits [b, k], and with novelty the features [b, f] of its first network."""

    logits: Floats
    features: Floats | None = None


Graph = Callable[..., GraphOutputs]  # one argument for each input


def open_graph(file: Path) -> Graph:
    """Return a function from normalized images to outputs: an argument float32 [b, 3, s, s] for each input."""
    if file.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        return lambda *images: GraphOutputs(*session.run(None, dict(zip(names, images, strict=True))))
    import torch

    network = torch.export.load(file).module()

    def run(*images: Floats) -> GraphOutputs:
        with torch.no_grad():
            outputs = network(*map(torch.from_numpy, images))
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        return GraphOutputs(*(each.numpy() for each in tensors))

    return run


class Predicted(NamedTuple):
    """The predictions for a batch; rows of images with an error are 0, and ``novelty`` [b] is None without novelty."""

    probabilities: npt.NDArray[np.float64]
    novelty: npt.NDArray[np.float64] | None
    errors: list[str | None]


class ImageClassifier(PythonModel):
    """Predicts labels and probabilities of images; the module's docstring describes the input and output."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the files of the package."""
        files = {name: Path(path) for name, path in context.artifacts.items()}
        facts = json.loads(files["facts"].read_text(encoding="utf-8"))
        self.labels: list[str] = facts["labels"]
        self.temperature: float = facts["temperature"]
        self.preprocess = _load_module(files["preprocess"])
        self.preprocessings = [self.preprocess.Preprocessing.from_dict(each) for each in facts["preprocessings"]]
        self.graph = open_graph(files["graph"])
        self.scorer = None
        if "novelty_levels" in files:
            with np.load(files["novelty_levels"], allow_pickle=False) as arrays:
                self.scorer = _load_module(files["novelty"]).NoveltyScorer(arrays)
        self.recorder = _load_module(files["recording"]).recorder_from_environment()
        self.package_id: str = facts["package_id"]
        is_set_by_environment = "allow_paths" in os.environ.get(CONFIG_VARIABLE, "")
        self.allow_paths = context.model_config["allow_paths"] is True and not is_set_by_environment

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Return label, score, novelty and class probabilities of each image, or the reason why it is unreadable.

        Raises:
            MlflowException: a parameter is out of range.
        """
        params = params or {}
        top_k = _check_int("top_k", params.get("top_k", 0), 0, len(self.labels))
        batch_size = _check_int("batch_size", params.get("batch_size", BATCH_SIZE), 1, MAX_BATCH_SIZE)
        reject = self._check_reject(params.get("reject", KEEP_ALL))
        elements = list(_elements(model_input))
        batches = [elements[start : start + batch_size] for start in range(0, len(elements), batch_size)]
        predicted = [self._predict_batch(batch) for batch in batches]
        probabilities = np.concatenate([np.zeros((0, len(self.labels))), *(each.probabilities for each in predicted)])
        errors = [error for each in predicted for error in each.errors]
        frame = self._top_k_columns(probabilities, top_k) if top_k else self._class_columns(probabilities)
        frame.insert(0, "label", [self.labels[index] for index in probabilities.argmax(axis=1)])
        frame.insert(1, "score", probabilities.max(axis=1, initial=0.0))
        frame.insert(2, "error", pd.Series(errors, dtype=object))
        if self.scorer is not None:
            novelty = np.concatenate([np.zeros(0), *(each.novelty for each in predicted if each.novelty is not None)])
            frame.insert(3, "novelty", novelty)
            frame.loc[novelty > reject, "label"] = ""
        return _blank_failed_rows(frame)

    def _check_reject(self, value: Any) -> float:  # noqa: ANN401  # any type a caller passes
        if isinstance(value, bool) or not 0 < float(value) <= KEEP_ALL:
            raise MlflowException.invalid_parameter_value(f"reject must be above 0 and at most 1, got {value}")
        if value < KEEP_ALL and self.scorer is None:
            message = f"reject must be 1 for this model, which was packaged without novelty, got {value}"
            raise MlflowException.invalid_parameter_value(message)
        return float(value)

    def _predict_batch(self, elements: list[object]) -> Predicted:
        """Return the predictions for images, and record them if a recorder is set up."""
        started_s = time.perf_counter()
        sources: dict[int, Source] = {}
        pixels: dict[int, list[npt.NDArray[np.uint8]]] = {}
        errors: list[str | None] = [None] * len(elements)
        for index, element in enumerate(elements):
            try:
                sources[index] = self._source_of(element)
                pixels[index] = self._load_pixels(sources[index])
            except ValueError as error:
                errors[index] = str(error)
        probabilities = np.zeros((len(elements), len(self.labels)))
        novelty = None if self.scorer is None else np.zeros(len(elements))
        if pixels:
            inputs = zip(zip(*pixels.values(), strict=True), self.preprocessings, strict=True)
            images = [self.preprocess.normalize(np.stack(batch), preprocessing) for batch, preprocessing in inputs]
            outputs = self.graph(*map(np.ascontiguousarray, images))
            rows = list(pixels)
            probabilities[rows] = _softmax(outputs.logits.astype(np.float64) / self.temperature)
            if self.scorer is not None and novelty is not None:
                novelty[rows] = self.scorer.novelty(outputs.features)
            if self.recorder is not None:
                seconds = (time.perf_counter() - started_s) / len(elements)
                known = None if novelty is None else novelty[rows]
                self._record([sources[row] for row in rows], probabilities[rows], known, outputs.features, seconds)
        return Predicted(probabilities, novelty, errors)

    def _record(
        self,
        sources: list[Source],
        probabilities: npt.NDArray[np.float64],
        novelty: npt.NDArray[np.float64] | None,
        features: Floats | None,
        seconds: float,
    ) -> None:
        common = {"time": round(time.time(), 3), "model": self.package_id, "latency_ms": round(1000 * seconds, 3)}
        summarize = None if self.scorer is None else partial(self.scorer.summaries, features)
        self.recorder.record(common, sources, self.labels, probabilities, novelty, summarize)

    def _source_of(self, element: object) -> Source:
        """Return the image that an element of the input contains or names.

        Raises:
            ValueError: the element is none.
        """
        source = self._decode_text(element) if isinstance(element, str) else element
        if isinstance(source, (bytearray, memoryview)):
            source = bytes(source)
        if not isinstance(source, (bytes, Path, Image.Image, np.ndarray)):
            types = "bytes, base64 text, a pathlib.Path, a PIL image or a uint8 array"
            raise ValueError(f"must be {types}, got {type(source).__name__}")
        if isinstance(source, bytes) and len(source) > MAX_TEXT_LENGTH:
            raise ValueError(f"must be at most {MAX_TEXT_LENGTH:,} bytes, got {len(source):,}")
        return source

    def _load_pixels(self, source: Source) -> list[npt.NDArray[np.uint8]]:
        """Return an image, decoded once, at the size of each input of the graph."""
        image = self.preprocess.read_image(source, self.preprocessings[0].value_range)  # of the data set
        return [self.preprocess.to_pixels(image, preprocessing) for preprocessing in self.preprocessings]

    def _decode_text(self, text: str) -> bytes | Path:
        if self.allow_paths and SERVER_MODULE not in sys.modules and os.path.isfile(text):  # noqa: PTH113  # never raises
            return Path(text)
        if len(text) > MAX_TEXT_LENGTH:
            raise ValueError(f"must be at most {MAX_TEXT_LENGTH:,} characters of base64, got {len(text):,}")
        content = text.partition(",")[2] if text.startswith("data:") else text
        try:
            return base64.b64decode("".join(content.split()), validate=True)
        except (binascii.Error, ValueError):
            reason = "a string must be a base64-encoded image; for a local file pass its bytes or a pathlib.Path"
            raise ValueError(reason) from None

    def _class_columns(self, probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
        """Return a column of probabilities for each class."""
        columns = [f"{label}_" if label in RESERVED_COLUMNS else label for label in self.labels]
        return pd.DataFrame(probabilities, columns=columns)

    def _top_k_columns(self, probabilities: npt.NDArray[np.float64], top_k: int) -> pd.DataFrame:
        """Return the columns label_2, score_2, ... up to ``top_k``; the first class is in label and score."""
        order = np.argsort(-probabilities, axis=1, kind="stable")
        frame = pd.DataFrame(index=range(len(probabilities)))
        for rank in range(1, top_k):
            frame[f"label_{rank + 1}"] = [self.labels[index] for index in order[:, rank]]
            frame[f"score_{rank + 1}"] = np.take_along_axis(probabilities, order[:, rank : rank + 1], axis=1)[:, 0]
        return frame


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _blank_failed_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Set everything but the error to None (null in JSON) in rows that have an error."""
    is_failed = frame["error"].notna()
    if not is_failed.any():
        return frame
    blanked = frame.drop(columns="error").astype(object)
    blanked[is_failed] = None
    blanked.insert(2, "error", frame["error"])
    return blanked


def _check_int(name: str, value: Any, minimum: int, maximum: int) -> int:  # noqa: ANN401  # any type a caller passes
    if isinstance(value, bool) or int(value) != value or not minimum <= value <= maximum:
        message = f"{name} must be a whole number from {minimum} to {maximum}, got {value}"
        raise MlflowException.invalid_parameter_value(message)
    return int(value)


def _elements(model_input: Any) -> Iterator[Any]:  # noqa: ANN401  # any type a caller passes to MLflow
    if isinstance(model_input, pd.DataFrame):
        model_input = model_input.iloc[:, 0]
    yield from model_input


def _load_module(file: Path) -> ModuleType:
    """Load a file as a module with a unique name, since other packages in the process may contain other versions."""
    name = f"_packaged_preprocess_{hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # required by dataclasses
    spec.loader.exec_module(module)
    return module


mlflow.models.set_model(ImageClassifier())
