"""Writing a network as a graph with torch's exporters.

Shapes: a network takes a batch [b, 3, s, s] for each of its inputs, where s may differ, and returns logits [b, k], or
logits and features [b, f]. The graphs accept any b. ``images`` are at least two examples for each input: with one,
torch.export specializes the graph to a batch size of 1.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from data.errors import FreezelineError
from models.packaging.ensemble import Ensemble, LogitsAndFeatures

OPSET = 18  # the newest ONNX opset of the TorchScript exporter
EXPORTER_LOGGERS = ("torch", "onnxscript", "onnx_ir", "mlflow")  # of torch's exporters and of MLflow's save_model


class ExportError(FreezelineError):
    """A network that neither ONNX nor torch.export supports."""


def input_names(count: int) -> list[str]:
    """Return the names of the graph's inputs."""
    return ["images"] if count == 1 else [f"images_{number}" for number in range(count)]


def output_names(network: nn.Module) -> list[str]:
    """Return the names of the graph's outputs."""
    first = network.networks[0] if isinstance(network, Ensemble) else network
    return ["logits", "features"] if isinstance(first, LogitsAndFeatures) else ["logits"]


def write_traced_onnx(network: nn.Module, images: Sequence[Tensor], file: Path) -> None:
    """Write an ONNX graph with the TorchScript exporter, which records what the network does with the examples."""
    names, outputs = input_names(len(images)), output_names(network)
    with quiet_exporters():
        torch.onnx.export(
            network,
            _examples(images),
            str(file),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "b"} for name in (*names, *outputs)},
        )


def write_onnx(network: nn.Module, images: Sequence[Tensor], file: Path) -> None:
    """Write an ONNX graph with the exporter that is based on torch.export."""
    with quiet_exporters():
        program = torch.onnx.export(
            network,
            _examples(images),
            dynamo=True,
            input_names=input_names(len(images)),
            output_names=output_names(network),
            dynamic_shapes=_dynamic_shapes(network, images),
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program")
    program.save(str(file), external_data=False)


def write_pt2(network: nn.Module, images: Sequence[Tensor], file: Path) -> None:
    """Write a program of torch.export."""
    with quiet_exporters(), torch.no_grad():
        program = torch.export.export(network, _examples(images), dynamic_shapes=_dynamic_shapes(network, images))
        program.example_inputs = None  # they would be stored as a pickle, the only one in the file
        torch.export.save(program, file)


def _examples(images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(each[:2] for each in images)


def _dynamic_shapes(network: nn.Module, images: Sequence[Tensor]) -> tuple[object, ...]:
    """Return the form of the inputs for torch.export: they have the same batch size, and it may vary."""
    shapes = tuple({0: torch.export.Dim("b")} for _ in images)
    return (shapes,) if isinstance(network, Ensemble) else shapes  # *images is a single parameter


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
