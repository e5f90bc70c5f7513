"""Compare ways to run a frozen network: ``python -m benchmarks.prefix [BACKBONE ...] [--size 128]``.

For each engine, report the median milliseconds per image without gradients (engines alternate, because the load of the
machine may change); the setup time in seconds, which a short search must recoup; and the deviation of its features from
eager float32, relative to the largest feature. Weights are random: speed does not depend on them. With
``--batches`` it compares batch sizes instead, in eager mode with channels_last.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from models.backbones.factory import create_backbone
from models.device import disable_malloc_trim, to_channels_last

BACKBONES = ("tf_efficientnet_lite0", "resnet18", "mobilenetv3_large_100", "convnext_tiny", "vit_tiny_patch16_224")
BATCH, BATCHES = 16, (4, 8, 16, 32, 64)
Run = Callable[[Tensor], Tensor]


def eager(network: nn.Module, x: Tensor) -> Run:
    """Run in torch's eager mode."""
    del x
    return network


def channels_last(network: nn.Module, x: Tensor) -> Run:
    """Run in eager mode with the channels_last memory format."""
    del x
    to_channels_last(network)
    return lambda batch: network(batch.contiguous(memory_format=torch.channels_last))


def bfloat16(network: nn.Module, x: Tensor) -> Run:
    """Run with bfloat16 autocast."""
    run = channels_last(network, x)

    def autocast(batch: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return run(batch).float()

    return autocast


def compiled(network: nn.Module, x: Tensor) -> Run:
    """Compile with inductor for this batch size."""
    run: Run = torch.compile(channels_last(network, x))
    run(x)
    return run


def onnxruntime(network: nn.Module, x: Tensor) -> Run:
    """Run in ONNX Runtime."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(network, (x,), file, dynamo=True, verbose=False)
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: torch.from_numpy(session.run(None, {name: batch.numpy()})[0])


ENGINES: dict[str, Callable[[nn.Module, Tensor], Run]] = {
    "eager": eager,
    "channels_last": channels_last,
    "bfloat16": bfloat16,
    "compiled": compiled,
    "onnxruntime": onnxruntime,
}


def backbone(name: str, size: int) -> nn.Module:
    """Return a network with seeded random weights, in eval mode."""
    torch.manual_seed(0)
    return create_backbone(name, "none", size).network.eval()


def ms_per_image(run: Run, x: Tensor) -> float:
    """Return the milliseconds per image of a batch."""
    start = time.perf_counter()
    run(x)
    return 1000 * (time.perf_counter() - start) / len(x)


def compare_engines(name: str, size: int, rounds: int, engines: list[str]) -> None:
    """Print one row for each engine."""
    x = torch.randn(BATCH, 3, size, size)
    exact = backbone(name, size)(x)
    ready: dict[str, tuple[Run, float]] = {}
    for engine in engines:
        start = time.perf_counter()
        try:
            run = ENGINES[engine](backbone(name, size), x)
            run(x)
        except Exception as error:  # an engine that fails gets a row, too
            print(f"{name:24} {engine:14} failed: {next(iter(str(error).splitlines()), type(error).__name__)[:60]}")
            continue
        ready[engine] = run, time.perf_counter() - start
    times_ms: dict[str, list[float]] = {engine: [] for engine in ready}
    for _ in range(rounds):
        for engine, (run, _) in ready.items():
            times_ms[engine].append(ms_per_image(run, x))
    for engine, (run, ready_s) in ready.items():
        difference = float((run(x) - exact).abs().max() / exact.abs().max())
        median_ms = statistics.median(times_ms[engine])
        print(f"{name:24} {engine:14} {median_ms:8.2f} {ready_s:8.1f} {difference:10.1e}", flush=True)


def compare_batches(name: str, size: int, rounds: int) -> None:
    """Print the milliseconds per image for each batch size, in one row."""
    run = channels_last(backbone(name, size), torch.empty(0))
    inputs = [torch.randn(batch, 3, size, size) for batch in BATCHES]
    rows = [[ms_per_image(run, x) for x in inputs] for _ in range(rounds + 1)][1:]
    print(
        f"{name:24} " + " ".join(f"{statistics.median(column):8.2f}" for column in zip(*rows, strict=True)), flush=True
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", action="store_true")
    parser.add_argument("--engines", default=",".join(ENGINES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the exporters
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    disable_malloc_trim()
    print(f"torch {torch.__version__}, {options.size} px, 1 thread of {os.cpu_count()}; ms per image")
    sizes = " ".join(f"{batch:>8}" for batch in BATCHES)
    print(f"{'':24} {sizes}" if options.batches else f"{'':24} {'':14} {'ms':>8} {'ready s':>8} {'error':>10}")
    with torch.no_grad():
        for name in options.backbones:
            if options.batches:
                compare_batches(name, options.size, options.rounds)
            else:
                compare_engines(name, options.size, options.rounds, options.engines.split(","))


if __name__ == "__main__":
    main()
