"""Export of the packaged model: a graph, its labels and its preprocessing; no pickle and no import of this project.

``export_package`` writes a folder, ``log_package`` logs it as an MLflow model:

    model.onnx             normalized images [b, 3, s, s] float32 -> logits [b, k]; any b; one file. If ONNX does not
                           support the network, model.pt2 of torch.export instead; the package then requires torch
    facts.json             ``PackageFacts``, the preprocessing of each network, and the ``ExportResult``
    preprocess.py          data/preprocessing.py, verbatim
    weights.safetensors    and trial.json: everything needed to continue training

The softmax is not part of the graph (``models.packaging.pyfunc_model`` computes it in float64, as in training), so that
the logits can be compared, calibrated and ensembled.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import NonNegativeFloat, PositiveFloat
from safetensors.torch import save_file
from torch import Tensor, nn

from data import preprocessing
from data.errors import FreezelineError, first_line
from data.frozen_model import FrozenModel
from data.preprocessing import Pixels, normalize
from models.classifier import Classifier
from models.packaging import pyfunc_model
from models.trial_config import TrialConfig

Logits = npt.NDArray[np.float32]

# Largest accepted absolute difference in a logit; layer fusion in ONNX Runtime changes it by about 1e-5.
TOLERANCE = 1e-3
NUM_CHECKED_IMAGES = 64
EXPORTER_LOGGERS = ("torch", "onnxscript", "onnx_ir", "mlflow")  # of torch's exporters and of MLflow's save_model


class ExportError(FreezelineError):
    """A network that neither ONNX nor torch.export supports."""


class PackageFacts(FrozenModel):
    """The class names in the order of the logits, the data set's fingerprint, and the divisor of the logits."""

    labels: tuple[str, ...]
    data_fingerprint: str
    temperature: PositiveFloat = 1.0


class ExportResult(FrozenModel):
    """The file name of the graph, and its check: the largest difference of a logit from torch's, on real images.

    ``notes`` are messages for the user; empty for an ONNX export without problems.
    """

    graph: str
    max_difference: NonNegativeFloat
    num_checked_images: int
    notes: tuple[str, ...] = ()


def export_package(
    classifier: Classifier, config: TrialConfig, facts: PackageFacts, pixels: Pixels, folder: Path
) -> ExportResult:
    """Write the package's files into ``folder`` and check its graph on real images [n, s, s, 3].

    Takes seconds to a minute. The classifier is not modified.

    Raises:
        ExportError: neither ONNX nor torch.export gives a graph that agrees with torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = nn.Sequential(copy.deepcopy(classifier.network), copy.deepcopy(classifier.head)).cpu().eval()
    _disable_inplace(network)
    sample = np.resize(pixels[:NUM_CHECKED_IMAGES], (max(2, min(len(pixels), NUM_CHECKED_IMAGES)), *pixels.shape[1:]))
    images = torch.from_numpy(normalize(sample, config.preprocessing)).contiguous()
    result = _export_graph(network, images, folder)
    content = {
        **facts.model_dump(mode="json"),
        "preprocessings": [config.preprocessing.to_dict()],
        **result.model_dump(mode="json"),
    }
    (folder / ARTIFACTS["facts"]).write_text(json.dumps(content, indent=2))
    (folder / ARTIFACTS["trial"]).write_text(config.to_json(indent=2))
    shutil.copyfile(Path(preprocessing.__file__), folder / ARTIFACTS["preprocess"])
    state_dict = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    save_file(state_dict, folder / ARTIFACTS["weights"])
    return result


def _disable_inplace(network: nn.Module) -> None:
    """Make all layers out-of-place: functionalizing in-place layers takes half of the export time (15 -> 8 s)."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  # the attribute is not part of nn.Module's type


def _export_graph(network: nn.Module, images: Tensor, folder: Path) -> ExportResult:
    """Write the graph in the first format that agrees with torch: ONNX, then torch.export."""
    with torch.no_grad():
        expected = network(images).numpy()
    failures: list[str] = []
    for suffix, write in (("onnx", _write_onnx), ("pt2", _write_pt2)):
        file = folder / f"model.{suffix}"
        try:
            write(network, images, file)
            difference = _compare(expected, _run(file, images.numpy()))
        except Exception as error:  # exporters raise many types; the first line is reported, and the next format tried
            failures.append(f"{suffix}: {first_line(error)}")
            file.unlink(missing_ok=True)
            continue
        notes = tuple(f"packaged with torch.export, which requires torch at inference ({f})" for f in failures)
        return ExportResult(graph=file.name, max_difference=difference, num_checked_images=len(images), notes=notes)
    reasons = "; ".join(failures)
    raise ExportError(
        f"the exported graph must agree with torch, but the network cannot be exported ({reasons}); "
        "choose another backbone"
    )


def _compare(expected: Logits, actual: Logits) -> float:
    """Return the largest difference of a logit; raise ExportError if it is above the tolerance."""
    difference = float(np.abs(expected - actual).max())
    if not difference <= TOLERANCE:
        raise ExportError(f"its logits differ from torch's by up to {difference:.2g}, more than {TOLERANCE:g}")
    return difference


def _run(file: Path, images: Logits) -> Logits:
    """Run a graph as the packaged model does, with a batch of one image and with a larger batch."""
    graph = pyfunc_model.open_graph(file)
    return np.concatenate([graph(images[:1]), graph(images[1:])])


def _write_onnx(network: nn.Module, images: Tensor, file: Path) -> None:
    with quiet_exporters():
        program = torch.onnx.export(
            network,
            (images[:2],),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("b")},),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    program.save(str(file), external_data=False)


def _write_pt2(network: nn.Module, images: Tensor, file: Path) -> None:
    # Two example images: with one, torch.export specializes the graph to a batch size of 1.
    with quiet_exporters(), torch.no_grad():
        program = torch.export.export(network, (images[:2],), dynamic_shapes=({0: torch.export.Dim("b")},))
        program.example_inputs = None  # they would be stored as a pickle, the only one in the file
        torch.export.save(program, file)


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Context manager that silences the exporters' own loggers, warnings and stdout; errors are still raised."""
    loggers = [logging.getLogger(name) for name in EXPORTER_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


ARTIFACTS = {
    "facts": "facts.json",
    "preprocess": "preprocess.py",
    "weights": "weights.safetensors",
    "trial": "trial.json",
}
