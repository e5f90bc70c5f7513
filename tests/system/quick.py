"""Searches without the slow parts of packaging: ``python -m tests.system.quick COMMAND`` instead of ``-m tuning``.

The tests of other behavior use them. ``test_search``, ``test_mlflow_run`` and ``tests/models`` use the real parts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

MODULE = "tests.system.quick"
NO_BUDGET_S = -1.0


def export_quickly(network: nn.Module, images: Sequence[Tensor], file: Path) -> None:
    """Write an ONNX graph as ``models.packaging.export`` does, in half a second instead of six to nine."""
    from models.packaging.export import input_names, quiet_exporters

    names = input_names(len(images))
    with quiet_exporters():
        torch.onnx.export(
            network,
            tuple(each[:2] for each in images),
            str(file),
            dynamo=False,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "b"} for name in (*names, "logits")},
        )


def make_searches_quick(patch: pytest.MonkeyPatch) -> None:
    """Use the quick exporter, measure no serving costs, and do not load registered versions in a clean process."""
    patch.setattr("models.packaging.export._write_onnx", export_quickly)
    patch.setattr("tuning.workflows.finalize.COST_MEASUREMENT_BUDGET_S", NO_BUDGET_S)
    patch.setattr("tuning.registry.promotion.verify_model_loads", lambda *_: None)


if __name__ == "__main__":
    from tuning.__main__ import main
    from tuning.common.environment import DEFAULTS

    # As in main, but before the import of MLflow by the modules whose parts are replaced.
    os.environ.update({name: value for name, value in DEFAULTS.items() if name not in os.environ})
    with pytest.MonkeyPatch.context() as context:
        make_searches_quick(context)
        sys.exit(main(sys.argv[1:]))
