"""The servable model: a graph, its labels and its preprocessing; no pickle, and no import of this project.

``export_package`` writes a folder, ``log_package`` makes an MLflow model of it:

    model.onnx             normalized pictures [b, 3, s, s] float32 -> logits [b, k]; any b; one file. Where ONNX can't
                           express the network, model.pt2 of torch.export instead, which makes the package need torch
    facts.json             labels, preprocessing, temperature, what the check of the graph found, the data's fingerprint
    preprocess.py          data/preprocessing.py, verbatim
    weights.safetensors    and trial.json: what is needed to go on training

The softmax is outside the graph (``models.packaging.pyfunc_model`` takes it in float64, as training does), so that the logits can be
compared, calibrated and ensembled.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import NonNegativeFloat
from safetensors.torch import save_file
from torch import Tensor, nn

from data import preprocessing
from data.errors import FreezelineError
from data.frozen_model import FrozenModel
from data.preprocessing import Pixels, normalize
from models.classifier import Classifier
from models.packaging import pyfunc_model
from models.trial_config import TrialConfig

Logits = npt.NDArray[np.float32]

TOLERANCE = 1e-3  # of a logit; ONNX Runtime fuses layers, which moves a logit by about 1e-5
NUM_CHECKED_IMAGES = 64


class ExportError(FreezelineError):
    """A network that can be expressed neither in ONNX nor with torch.export."""


class ExportResult(FrozenModel):
    """What ``export_package`` wrote, and what its check found.

    Attributes:
        graph: name of the graph's file.
        max_difference: largest difference of a logit between the graph and torch, on real pictures.
        checked_pictures: on how many.
        notes: sentences that the user should read; empty if all went the usual way.
    """

    graph: str
    max_difference: NonNegativeFloat
    num_checked_images: int
    notes: tuple[str, ...] = ()


def export_package(
    classifier: Classifier,
    config: TrialConfig,
    classes: Sequence[str],
    data_fingerprint: str,
    pixels: Pixels,
    folder: Path,
    temperature: float = 1.0,
) -> ExportResult:
    """Write the package's files into ``folder`` and check its graph on ``pixels``, real pictures [n, s, s, 3].

    The served model divides its logits by ``temperature``. The classifier isn't changed. Takes seconds to a minute.

    Raises:
        ExportError: neither ONNX nor torch.export gives a graph that agrees with torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = nn.Sequential(copy.deepcopy(classifier.network), copy.deepcopy(classifier.head)).cpu().eval()
    _disable_inplace(network)
    chosen = np.resize(pixels[:NUM_CHECKED_IMAGES], (max(2, min(len(pixels), NUM_CHECKED_IMAGES)), *pixels.shape[1:]))
    pictures = torch.from_numpy(normalize(chosen, config.preprocessing)).contiguous()
    exported = _export_graph(network, pictures, folder)
    facts = {
        "labels": list(classes),
        "preprocessing": config.preprocessing.to_dict(),
        "data_fingerprint": data_fingerprint,
        "temperature": temperature,
        **exported.model_dump(mode="json"),
    }
    (folder / ARTIFACTS["facts"]).write_text(json.dumps(facts, indent=2))
    (folder / ARTIFACTS["trial"]).write_text(config.to_json(indent=2))
    shutil.copyfile(Path(preprocessing.__file__), folder / ARTIFACTS["preprocess"])
    state = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    save_file(state, folder / ARTIFACTS["weights"])
    return exported


def _disable_inplace(network: nn.Module) -> None:
    """Let no layer overwrite its input: exporters unpick each that does, which is half of their time (15 to 8 s)."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  # no layer's type says that it has it


def _export_graph(network: nn.Module, pictures: Tensor, folder: Path) -> ExportResult:
    """Write the graph in the first form that agrees with torch."""
    with torch.no_grad():
        expected = network(pictures).numpy()
    failures: list[str] = []
    for suffix, write in (("onnx", _write_onnx), ("pt2", _write_pt2)):
        file = folder / f"model.{suffix}"
        try:
            write(network, pictures, file)
            difference = _compare(expected, _run(file, pictures.numpy()))
        except Exception as error:  # exporters raise anything; the sentence is kept, and the next form is tried
            failures.append(f"{suffix}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}")
            file.unlink(missing_ok=True)
            continue
        notes = tuple(f"the model is packaged with torch.export, so that it needs torch ({f})" for f in failures)
        return ExportResult(graph=file.name, max_difference=difference, num_checked_images=len(pictures), notes=notes)
    reasons = "; ".join(failures)
    raise ExportError(
        f"a model must be a graph that agrees with torch, but it can't be packaged ({reasons}); choose another backbone"
    )


def _compare(expected: Logits, found: Logits) -> float:
    """Return the largest difference of a logit.

    Raises:
        ExportError: it is above the tolerance, or a picture is predicted otherwise.
    """
    difference = float(np.abs(expected - found).max())
    if not difference <= TOLERANCE:
        raise ExportError(f"its logits differ from torch's by up to {difference:.2g}, more than {TOLERANCE:g}")
    margin = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0]
    changed = (expected.argmax(axis=1) != found.argmax(axis=1)) & (margin > 2 * difference)
    if changed.any():
        raise ExportError(f"it predicts another class for {changed.sum()} of {len(expected)} pictures")
    return difference


def _run(file: Path, pictures: Logits) -> Logits:
    """Run a graph as the served model does, for batches of one and of more."""
    graph = pyfunc_model.open_graph(file)
    return np.concatenate([graph(pictures[:1]), graph(pictures[1:])])


def _write_onnx(network: nn.Module, pictures: Tensor, file: Path) -> None:
    with quiet_exporters():
        program = torch.onnx.export(
            network,
            (pictures[:2],),
            dynamo=True,
            input_names=["pictures"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("b")},),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave nothing")
    program.save(str(file), external_data=False)


def _write_pt2(network: nn.Module, pictures: Tensor, file: Path) -> None:
    # The example has two pictures: of one, torch.export would make a graph that takes no other number.
    with quiet_exporters(), torch.no_grad():
        program = torch.export.export(network, (pictures[:2],), dynamic_shapes=({0: torch.export.Dim("b")},))
        program.example_inputs = None  # they would be kept as a pickle, the only one in the file
        torch.export.save(program, file)


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Keep the exporters' progress and deprecations to themselves; what fails is raised and told in one sentence."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


ARTIFACTS = {
    "facts": "facts.json",
    "preprocess": "preprocess.py",
    "weights": "weights.safetensors",
    "trial": "trial.json",
}
