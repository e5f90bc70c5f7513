"""Export of the packaged model: a graph, its labels and its preprocessing; no pickle and no import of this project.

``export_graph`` and ``write_facts`` write a folder, ``log_package`` logs it as an MLflow model:

    model.onnx             normalized images [b, 3, s, s] float32 -> logits [b, k]; any b; one file. If ONNX does not
                           support the network, model.pt2 of torch.export instead; the package then requires torch.
                           With novelty a second output: the features [b, f] of the first network
    facts.json             ``PackageFacts``, the preprocessing of each input, and the ``ExportResult``
    preprocess.py          data/preprocessing.py, verbatim
    recording.py           models/packaging/recording.py, verbatim
    reference.npz          what the package predicts for test images, for ``monitor``
    novelty.py             models/evaluation/novelty_score.py, verbatim; and novelty.npz, its arrays, if there are any
    weights.safetensors    and trial.json: everything needed to continue training

A package has one network, or an ensemble of several in the same graph (``models.packaging.ensemble``). The graph has an
input for each different preprocessing of its networks: ``images``, or ``images_0``, ``images_1``, ... For an ensemble,
trial.json is a list with the configuration and the weight of each network, and the tensors of network i are named
``members.i.NAME``.

The softmax is not part of the graph (``models.packaging.pyfunc_model`` computes it in float64, as in training), so that
the logits can be compared and calibrated.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import NonNegativeFloat, PositiveFloat
from safetensors.torch import save_file
from torch import Tensor, nn

from data import preprocessing as preprocessing_module
from data.errors import first_line
from data.frozen_model import FrozenModel
from data.preprocessing import Pixels, Preprocessing, normalize
from models.classifier import Classifier
from models.evaluation import novelty_score
from models.packaging import pyfunc_model, recording
from models.packaging.ensemble import Ensemble, LogitsAndFeatures
from models.packaging.exporters import ExportError, write_onnx, write_pt2, write_traced_onnx
from models.packaging.recording import ID_LENGTH
from models.trial_config import TrialConfig

Logits = npt.NDArray[np.float32]

# Largest accepted absolute difference in a logit; layer fusion in ONNX Runtime changes it by about 1e-5.
TOLERANCE = 1e-3
NUM_CHECKED_IMAGES = 16

# By suffix, the fastest first: TorchScript takes about a second, the newer exporter five to twenty.
EXPORTERS = (("onnx", write_traced_onnx), ("onnx", write_onnx), ("pt2", write_pt2))
PT2_NOTE = "packaged with torch.export, which requires torch at inference"
ARTIFACTS = {
    "facts": "facts.json",
    "preprocess": "preprocess.py",
    "novelty": "novelty.py",
    "recording": "recording.py",
    "weights": "weights.safetensors",
    "trial": "trial.json",
}
OPTIONAL_ARTIFACTS = {"novelty_levels": "novelty.npz", "reference": "reference.npz"}


class PackageMember(NamedTuple):
    """A network of a package, its configuration, and its weight in the mean of the probabilities."""

    classifier: Classifier
    config: TrialConfig
    weight: float = 1.0


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
    members: Sequence[PackageMember], facts: PackageFacts, pixels: Sequence[Pixels], folder: Path
) -> ExportResult:
    """Write all of a package's files into ``folder``; see ``export_graph``."""
    result = export_graph(members, pixels, folder)
    write_facts([member.config for member in members], facts, result, folder)
    return result


def export_graph(
    members: Sequence[PackageMember], pixels: Sequence[Pixels], folder: Path, *, with_features: bool = False
) -> ExportResult:
    """Write the graph into ``folder`` and check it on real images; write the files for further training.

    ``pixels`` are the same images for each of ``distinct_preprocessings``: [n, s, s, 3], where s may differ.
    ``with_features`` adds the features of the first network as an output.

    Takes a second, or up to a minute if the first exporter fails. The classifiers are not modified.

    Raises:
        ExportError: neither ONNX nor torch.export gives a graph that agrees with torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    preprocessings = distinct_preprocessings(member.config for member in members)
    network = _join(members, preprocessings, with_features=with_features)
    images = [_sample(*pair) for pair in zip(pixels, preprocessings, strict=True)]
    result = _export_graph(network, images, folder)
    _write_training_files(members, folder)
    return result


def write_facts(configs: Iterable[TrialConfig], facts: PackageFacts, result: ExportResult, folder: Path) -> None:
    """Write the facts and the preprocessing of a graph's networks."""
    content = {
        **facts.model_dump(mode="json"),
        "package_id": hashlib.sha256((folder / result.graph).read_bytes()).hexdigest()[:ID_LENGTH],
        "preprocessings": [preprocessing.to_dict() for preprocessing in distinct_preprocessings(configs)],
        **result.model_dump(mode="json"),
    }
    (folder / ARTIFACTS["facts"]).write_text(json.dumps(content, indent=2))
    shutil.copyfile(Path(preprocessing_module.__file__), folder / ARTIFACTS["preprocess"])
    shutil.copyfile(Path(novelty_score.__file__), folder / ARTIFACTS["novelty"])
    shutil.copyfile(Path(recording.__file__), folder / ARTIFACTS["recording"])


def distinct_preprocessings(configs: Iterable[TrialConfig]) -> tuple[Preprocessing, ...]:
    """Return the different preprocessings of configurations in the order of first use: the inputs of the graph."""
    return tuple(dict.fromkeys(config.preprocessing for config in configs))


def member_prefixes(count: int) -> list[str]:
    """Return the prefix of each network's tensors in weights.safetensors; a single network has none."""
    return [""] if count == 1 else [f"members.{number}." for number in range(count)]


def _join(
    members: Sequence[PackageMember], preprocessings: Sequence[Preprocessing], *, with_features: bool
) -> nn.Module:
    """Return the network to export, a copy: [b, 3, s, s] for each preprocessing -> logits [b, k], features [b, f]."""
    parts = [copy.deepcopy((member.classifier.network, member.classifier.head)) for member in members]
    networks: list[nn.Module] = [nn.Sequential(*part) for part in parts]
    if with_features:
        networks[0] = LogitsAndFeatures(*parts[0])
    inputs = [preprocessings.index(member.config.preprocessing) for member in members]
    weights = [member.weight for member in members]
    network = networks[0] if len(networks) == 1 else Ensemble(networks, inputs, weights)
    network = network.cpu().eval()
    _disable_inplace(network)
    return network


def _sample(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """Return the images on which the graph is checked: at least 2, repeated if necessary."""
    count = max(2, min(len(pixels), NUM_CHECKED_IMAGES))
    sample = np.resize(pixels[:NUM_CHECKED_IMAGES], (count, *pixels.shape[1:]))
    return torch.from_numpy(normalize(sample, preprocessing)).contiguous()


def _write_training_files(members: Sequence[PackageMember], folder: Path) -> None:
    """Write the configuration and all tensors of each network, for further training."""
    trials = [{"config": member.config.model_dump(mode="json"), "weight": member.weight} for member in members]
    text = members[0].config.to_json(indent=2) if len(members) == 1 else json.dumps(trials, indent=2)
    (folder / ARTIFACTS["trial"]).write_text(text)
    state_dict = {
        f"{prefix}{name}": value.detach().cpu().contiguous()
        for prefix, member in zip(member_prefixes(len(members)), members, strict=True)
        for name, value in member.classifier.state_dict().items()
    }
    save_file(state_dict, folder / ARTIFACTS["weights"])


def _disable_inplace(network: nn.Module) -> None:
    """Make all layers out-of-place: functionalizing in-place layers takes half of the export time (15 -> 8 s)."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010  # the attribute is not part of nn.Module's type


def _export_graph(network: nn.Module, images: Sequence[Tensor], folder: Path) -> ExportResult:
    """Write the graph with the first exporter whose graph agrees with torch."""
    with torch.no_grad():
        outputs = network(*images)
    expected = (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()
    failures: list[str] = []
    for suffix, write in EXPORTERS:
        file = folder / f"model.{suffix}"
        try:
            write(network, images, file)
            difference = _compare(expected, _run(file, images))
        except Exception as error:  # exporters raise many types; the first line is reported, and the next one tried
            failures.append(f"{suffix}: {first_line(error)}")
            file.unlink(missing_ok=True)
            continue
        notes = () if suffix == "onnx" else (f"{PT2_NOTE} ({'; '.join(failures)})",)
        return ExportResult(graph=file.name, max_difference=difference, num_checked_images=len(images[0]), notes=notes)
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


def _run(file: Path, images: Sequence[Tensor]) -> Logits:
    """Run a graph as the packaged model does, with a batch of one image and with a larger batch."""
    graph = pyfunc_model.open_graph(file)
    arrays = [each.numpy() for each in images]
    return np.concatenate([graph(*(each[rows] for each in arrays)).logits for rows in (slice(1), slice(1, None))])
