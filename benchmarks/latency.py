"""Compare the fast measurement of the serving cost with the package itself.

``python -m benchmarks.latency [NAME@SIZE ...]`` exports each network as the package does and as
``models.profiling.serving_cost`` does, and prints, for each of the two exports, its CPU time, the latency per image
and the size. Both graphs are measured alternately, the best of eight rounds, so that other load on the machine affects
both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing
from models.packaging.export import PackageFacts, PackageMember, export_package
from models.profiling.serving_cost import ServingSpec, export_torchscript_onnx, latency_ms, randomly_initialized
from models.trial_config import FitConfig, NetworkConfig, TrialConfig

NETWORKS = (
    "tf_efficientnet_lite0@96",
    "tf_efficientnet_lite2@160",
    "mobilenetv3_large_100@128",
    "resnet18@96",
    "convnext_femto@96",
    "vit_tiny_patch16_224@96",
    "torchvision/mobilenet_v2@160",
)
CLASSES = 6
ROUNDS = 8


def compare(name: str, size: int) -> str:
    """Return a row of the table: seconds, milliseconds and megabytes of the package and of the fast export."""
    classifier = randomly_initialized(ServingSpec(name, size, 0, "last", "linear", CLASSES))
    config = TrialConfig(
        seed=0,
        preprocessing=Preprocessing(size),
        batches=BatchConfig(),
        network=NetworkConfig(backbone=name, weights="none"),
        fit=FitConfig(),
    )
    pixels = np.zeros((2, size, size, 3), np.uint8)
    facts = PackageFacts(labels=tuple(map(str, range(CLASSES))), data_fingerprint="none")
    with tempfile.TemporaryDirectory() as folder:
        fast = Path(folder) / "fast.onnx"
        start = time.process_time()
        exported = export_package([PackageMember(classifier, config)], facts, [pixels], Path(folder))
        package = Path(folder) / exported.graph
        between = time.process_time()
        export_torchscript_onnx(classifier, size, fast)
        seconds = between - start, time.process_time() - between
        rounds = [(latency_ms(package), latency_ms(fast)) for _ in range(ROUNDS)]
        ms = [min(times) for times in zip(*rounds, strict=True)]
        mb = [file.stat().st_size / 1e6 for file in (package, fast)]
    cells = [name, str(size)]
    for package_value, fast_value, form in ((*seconds, "{:.1f}"), (*ms, "{:.2f}"), (*mb, "{:.2f}")):
        cells += [form.format(package_value), form.format(fast_value)]
    return f"| {' | '.join(cells)} | {ms[1] / ms[0] - 1:+.1%} | {mb[1] / mb[0] - 1:+.1%} |"


def main() -> None:
    """Print the table."""
    print("| network | px | s, package | s, fast | ms, package | ms, fast | MB, package | MB, fast | ms | MB |")
    print("|" + " --- |" * 10)
    for text in sys.argv[1:] or NETWORKS:
        name, _, size = text.partition("@")
        print(compare(name, int(size)), flush=True)


if __name__ == "__main__":
    main()
