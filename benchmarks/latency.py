"""Compare torch's two ONNX exporters: the fast one, which packages use first, and the newer one.

``python -m benchmarks.latency [NAME@SIZE ...]`` exports each network with both and prints, for each of the two, its CPU
time, the latency per image and the size of the graph. Both graphs are measured alternately, the best of eight rounds,
so that other load on the machine affects both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from models.packaging.exporters import write_onnx, write_traced_onnx
from models.profiling.serving_cost import ServingSpec, latency_ms, randomly_initialized

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
    """Return a row of the table: seconds, milliseconds and megabytes of the newer and of the fast exporter."""
    classifier = randomly_initialized(ServingSpec(name, size, 0, "last", "linear", CLASSES))
    network = nn.Sequential(classifier.network, classifier.head).eval()
    images = [torch.zeros(2, 3, size, size)]
    with tempfile.TemporaryDirectory() as folder:
        newer, fast = Path(folder) / "newer.onnx", Path(folder) / "fast.onnx"
        seconds = []
        for write, file in ((write_onnx, newer), (write_traced_onnx, fast)):
            start = time.process_time()
            write(network, images, file)
            seconds.append(time.process_time() - start)
        rounds = [(latency_ms(newer), latency_ms(fast)) for _ in range(ROUNDS)]
        ms = [min(times) for times in zip(*rounds, strict=True)]
        mb = [file.stat().st_size / 1e6 for file in (newer, fast)]
    cells = [name, str(size)]
    for values, digits in ((seconds, 1), (ms, 2), (mb, 2)):
        cells += [f"{value:.{digits}f}" for value in values]
    return f"| {' | '.join(cells)} | {ms[1] / ms[0] - 1:+.1%} | {mb[1] / mb[0] - 1:+.1%} |"


def main() -> None:
    """Print the table."""
    print("| network | px | s, newer | s, fast | ms, newer | ms, fast | MB, newer | MB, fast | ms | MB |")
    print("|" + " --- |" * 10)
    for text in sys.argv[1:] or NETWORKS:
        name, _, size = text.partition("@")
        print(compare(name, int(size)), flush=True)


if __name__ == "__main__":
    main()
