"""torch's exporters: their order, the check of their graphs, and their output."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data.preprocessing import normalize
from models.packaging import export as export_module
from models.packaging import pyfunc_model
from models.packaging.export import EXPORTERS, PackageFacts, export_package
from models.packaging.exporters import EXPORTER_LOGGERS, ExportError, quiet_exporters, write_traced_onnx
from models.packaging.mlflow_model import save_package
from models.packaging.pyfunc_model import GraphOutputs
from tests.models.conftest import CLASSES, Packaged, colored_pixels

FACTS = PackageFacts(labels=CLASSES, data_fingerprint="fingerprint")


def test_only_the_exporters_are_silenced_and_only_while_they_run(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [logging.getLogger(name).level for name in EXPORTER_LOGGERS]
    with quiet_exporters():
        print("progress")
        logging.getLogger("onnxscript.optimizer").warning("from an exporter")
        logging.getLogger("models.training").warning("from the project")
    assert (caplog.messages, capsys.readouterr().out) == (["from the project"], "")
    assert [logging.getLogger(name).level for name in EXPORTER_LOGGERS] == before


def test_a_network_that_onnx_does_not_support_is_packaged_with_torch_export_and_a_note(
    packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator: aten::strange\nlong traceback")

    monkeypatch.setattr(torch.onnx, "export", fail)
    result = export_package([packaged.member], FACTS, [colored_pixels(5)[0]], tmp_path / "package")
    assert result.graph == "model.pt2"
    assert result.notes == (
        "packaged with torch.export, which requires torch at inference (onnx: no such operator: aten::strange; "
        "onnx: no such operator: aten::strange)",
    )
    save_package(tmp_path / "package", tmp_path / "model")
    assert "torch==" in (tmp_path / "model" / "requirements.txt").read_text()
    with zipfile.ZipFile(tmp_path / "package" / "model.pt2") as archive:
        prefixes = [archive.read(name)[:2] for name in archive.namelist()]
    assert len(prefixes) > 10
    assert not [
        prefix for prefix in prefixes if prefix in {b"PK", b"\x80\x02", b"\x80\x04"}
    ]  # no pickle and no nested archive
    graph = pyfunc_model.open_graph(tmp_path / "package" / "model.pt2")
    x = normalize(colored_pixels(5)[0], packaged.config.preprocessing)
    with torch.inference_mode():
        expected = packaged.classifier.eval()(torch.from_numpy(x)).numpy()
    for count in (1, 2, 5):
        assert np.abs(graph(x[:count]).logits - expected[:count]).max() < 1e-4


def test_the_newer_exporter_is_used_if_the_graph_of_the_faster_one_has_other_logits(
    packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_another_network(network: nn.Module, images: Sequence[torch.Tensor], file: Path) -> None:
        write_traced_onnx(nn.Sequential(network, nn.Softmax(dim=1)), images, file)

    _, newer, pt2 = EXPORTERS
    monkeypatch.setattr(export_module, "EXPORTERS", (("onnx", write_another_network), newer, pt2))
    result = export_package([packaged.member], FACTS, [colored_pixels(5)[0]], tmp_path)
    assert (result.graph, result.notes) == ("model.onnx", ())
    x = normalize(colored_pixels(5)[0], packaged.config.preprocessing)
    with torch.inference_mode():
        expected = packaged.classifier.eval()(torch.from_numpy(x)).numpy()
    for count in (1, 2, 5):
        assert (
            np.abs(pyfunc_model.open_graph(tmp_path / "model.onnx")(x[:count]).logits - expected[:count]).max() < 1e-4
        )


def test_a_graph_with_different_logits_is_not_packaged(
    packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporters = [(suffix, lambda *arguments: arguments[-1].touch()) for suffix in ("onnx", "pt2")]
    monkeypatch.setattr(export_module, "EXPORTERS", exporters)
    monkeypatch.setattr(pyfunc_model, "open_graph", lambda _: lambda x: GraphOutputs(np.ones((len(x), 3), np.float32)))
    with pytest.raises(ExportError, match=r"cannot be exported \(onnx: its logits differ .*; pt2: its logits differ"):
        export_package([packaged.member], FACTS, [colored_pixels(2)[0]], tmp_path)
    assert not [file for file in tmp_path.iterdir() if file.suffix in {".onnx", ".pt2"}]
