"""Compare the package with eager torch: ``python -m benchmarks.predict [BACKBONE ...] [--size 224] [--rounds 40]``.

Both start with the bytes of a JPEG and end with probabilities, at batch sizes 1 and 32, alternating (the load of the
machine may change), with the same number of threads: the package through ``mlflow.pyfunc``'s own ``predict``, torch
with the same preprocessing, in eval mode without gradients. The output is the median of the rounds, and the package's
time relative to torch's; then the seconds from a new process to its first prediction: the package with the ``--python``
of your choice (such as a clean environment's; default: this one), and torch with timm. Weights are random: speed does
not depend on them.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing, normalize, read_image, to_pixels
from models.classifier import Classifier, build_classifier
from models.packaging.export import PackageFacts, PackageMember, export_package
from models.packaging.mlflow_model import save_package
from models.trial_config import FitConfig, NetworkConfig, TrialConfig

BACKBONES = ("tf_efficientnet_lite0",)
BATCHES = (1, 32)
CLASSES = ("cat", "dog")
PHOTO = (500, 375)  # pixels, as in the usual photo sets
PACKAGED = """
import pathlib, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
model.predict([pathlib.Path(sys.argv[2]).read_bytes()])
"""
TORCH = """
import sys, timm, torch
network = timm.create_model(sys.argv[1], num_classes=2).eval()
with torch.inference_mode():
    network(torch.zeros(1, 3, int(sys.argv[2]), int(sys.argv[2])))
"""


def photo() -> bytes:
    """Return the bytes of a JPEG."""
    buffer = io.BytesIO()
    Image.effect_noise(PHOTO, 60).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_package(config: TrialConfig, folder: Path) -> Classifier:
    """Package a network with random weights in ``folder / "model"`` and return the network."""
    classifier = build_classifier(config.network, len(CLASSES), config.preprocessing.image_size, seed=0)
    size = config.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (8, size, size, 3)).astype(np.uint8)
    facts = PackageFacts(labels=CLASSES, data_fingerprint="benchmark")
    export_package([PackageMember(classifier, config)], facts, [pixels], folder / "package")
    save_package(folder / "package", folder / "model")
    return classifier.eval()


def eager(classifier: Classifier, config: TrialConfig) -> Callable[[list[bytes]], object]:
    """Return a function that classifies images with torch."""

    def run(contents: list[bytes]) -> object:
        pixels = np.stack([to_pixels(read_image(content), config.preprocessing) for content in contents])
        with torch.inference_mode():
            return classifier(torch.from_numpy(normalize(pixels, config.preprocessing))).softmax(dim=1).numpy()

    return run


def medians_ms(
    runs: dict[str, Callable[[list[bytes]], object]], contents: list[bytes], rounds: int
) -> dict[str, float]:
    """Return the median milliseconds of each function for all of ``contents``, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run(contents)
            if number:
                times[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def cold_s(python: str, script: str, *arguments: str) -> float:
    """Return the seconds from the start to the exit of a new process."""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [python, "-I", "-W", "ignore", "-c", script, *arguments], cwd=folder, env=environment, check=True
        )
        return time.perf_counter() - started


def measure(backbone: str, size: int, rounds: int, python: str) -> None:
    """Print one network's lines."""
    import mlflow

    config = TrialConfig(
        seed=0,
        preprocessing=Preprocessing(size),
        batches=BatchConfig(),
        network=NetworkConfig(backbone=backbone, weights="none"),
        fit=FitConfig(),
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder, content = Path(scratch), photo()
        classifier = make_package(config, folder)
        packaged = mlflow.pyfunc.load_model(str(folder / "model"))
        runs = {"package": packaged.predict, "torch": eager(classifier, config)}
        megabytes = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file()) / 1e6
        print(f"{backbone}, {size} px, {torch.get_num_threads()} threads, package {megabytes:.0f} MB")
        for batch in BATCHES:
            medians = medians_ms(runs, [content] * batch, max(3, rounds // batch))
            ratio = medians["package"] / medians["torch"]
            print(
                f"  batch {batch:2}: package {medians['package']:.1f} ms, "
                f"torch {medians['torch']:.1f} ms, ratio {ratio:.2f}"
            )
        (folder / "photo.jpg").write_bytes(content)
        package_s = cold_s(python, PACKAGED, str(folder / "model"), str(folder / "photo.jpg"))
        torch_s = cold_s(sys.executable, TORCH, backbone, str(size))
        print(f"  new process to first prediction: package {package_s:.1f} s, torch and timm {torch_s:.1f} s")


def main() -> None:
    """Measure each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    for backbone in arguments.backbones:
        measure(backbone, arguments.size, arguments.rounds, arguments.python)


if __name__ == "__main__":
    main()
