"""Compare the package with eager torch: ``python -m benchmarks.predict [MODEL ...] [--size 224] [--rounds 40]``.

A model is a backbone, optionally ``BACKBONE@SIZE``; several with ``+`` in between are an ensemble, whose package is one
graph.

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
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.loading.batch_config import BatchConfig
from data.preprocessing import Preprocessing, normalize, read_image, to_pixels
from models.classifier import build_classifier
from models.packaging.export import PackageFacts, PackageMember, distinct_preprocessings, export_package
from models.packaging.mlflow_model import save_package
from models.trial_config import FitConfig, NetworkConfig, TrialConfig

MODELS = ("tf_efficientnet_lite0",)
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


def configs_of(model: str, size: int) -> list[TrialConfig]:
    """Return the configurations of the networks of a model; ``size`` is that of networks without one."""
    configs = []
    for network in model.split("+"):
        backbone, _, own_size = network.partition("@")
        configs.append(
            TrialConfig(
                seed=0,
                preprocessing=Preprocessing(int(own_size or size)),
                batches=BatchConfig(),
                network=NetworkConfig(backbone=backbone, weights="none"),
                fit=FitConfig(),
            )
        )
    return configs


def make_package(configs: Sequence[TrialConfig], folder: Path) -> list[PackageMember]:
    """Package networks with random weights in ``folder / "model"`` and return them."""
    members = []
    for config in configs:
        classifier = build_classifier(config.network, len(CLASSES), config.preprocessing.image_size, seed=0)
        members.append(PackageMember(classifier.eval(), config, 1 / len(configs)))
    rng = np.random.default_rng(0)
    sizes = [preprocessing.image_size for preprocessing in distinct_preprocessings(configs)]
    pixels = [rng.integers(0, 255, (8, size, size, 3)).astype(np.uint8) for size in sizes]
    facts = PackageFacts(labels=CLASSES, data_fingerprint="benchmark")
    export_package(members, facts, pixels, folder / "package")
    save_package(folder / "package", folder / "model")
    return members


def eager(members: Sequence[PackageMember]) -> Callable[[list[bytes]], object]:
    """Return a function that classifies images with torch: the mean of the networks' probabilities."""

    def run(contents: list[bytes]) -> object:
        images, outputs = [read_image(content) for content in contents], []
        for classifier, config, _ in members:
            pixels = np.stack([to_pixels(image, config.preprocessing) for image in images])
            with torch.inference_mode():
                logits = classifier(torch.from_numpy(normalize(pixels, config.preprocessing)))
                outputs.append(logits.softmax(dim=1).numpy())
        return np.mean(outputs, axis=0)

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


def measure(model: str, size: int, rounds: int, python: str) -> None:
    """Print the lines of one model."""
    import mlflow

    configs = configs_of(model, size)
    with tempfile.TemporaryDirectory() as scratch:
        folder, content = Path(scratch), photo()
        members = make_package(configs, folder)
        packaged = mlflow.pyfunc.load_model(str(folder / "model"))
        runs = {"package": packaged.predict, "torch": eager(members)}
        megabytes = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file()) / 1e6
        print(f"{model}, {size} px, {torch.get_num_threads()} threads, package {megabytes:.1f} MB")
        for batch in BATCHES:
            medians = medians_ms(runs, [content] * batch, max(3, rounds // batch))
            ratio, images_per_s = medians["package"] / medians["torch"], 1000 * batch / medians["package"]
            print(
                f"  batch {batch:2}: package {medians['package']:.1f} ms ({images_per_s:.0f} images/s), "
                f"torch {medians['torch']:.1f} ms, ratio {ratio:.2f}"
            )
        (folder / "photo.jpg").write_bytes(content)
        package_s = cold_s(python, PACKAGED, str(folder / "model"), str(folder / "photo.jpg"))
        first = configs[0]
        torch_s = cold_s(sys.executable, TORCH, first.network.backbone, str(first.preprocessing.image_size))
        print(
            f"  new process to first prediction: package {package_s:.1f} s, torch and timm, one network {torch_s:.1f} s"
        )


def main() -> None:
    """Measure each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    for model in arguments.models:
        measure(model, arguments.size, arguments.rounds, arguments.python)


if __name__ == "__main__":
    main()
