"""Coverage of the confidence intervals of accuracy, balanced accuracy and macro-F1 on simulated predictions.

Run ``python -m benchmarks.intervals``; it takes about 5 minutes. A 95 % interval should contain the true value in 93 to
97 % of the draws, with few images too. Two images have three outcomes, so that no interval covers every single true
value with 95 %: the models of the draws differ in their recalls, as those that people evaluate do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product

import numpy as np

from models.evaluation.intervals import confusion_interval
from models.evaluation.metrics import Counts, Floats, MetricName, macro_f1

CLASSES, IMAGES = (2, 5, 20, 50), (1, 3, 10, 100)
METRICS: tuple[MetricName, ...] = ("accuracy", "balanced_accuracy", "macro_f1")
STRENGTHS = (5.0, 20.0, 1e6)  # of the beta distribution of the recalls: from different to equal recalls


def draw_rates(rng: np.random.Generator, num_classes: int) -> Floats:
    """Return the shares of predicted classes [k, k] of a model: its mean recall is uniform in 0.5 to 1."""
    mean, strength = rng.uniform(0.5, 1), rng.choice(STRENGTHS)
    recalls = rng.beta(mean * strength, (1 - mean) * strength, num_classes)
    rates = np.zeros((num_classes, num_classes))
    for row, recall in enumerate(recalls):
        rates[row] = np.insert(rng.dirichlet(np.full(num_classes - 1, 0.5)) * (1 - recall), row, recall)
    return rates


def true_value(metric: MetricName, rates: Floats) -> float:
    """Return the metric for infinitely many images, the same number of each class."""
    if metric == "macro_f1":
        return float(macro_f1((1e9 * rates).astype(np.int64)))
    return float(np.diagonal(rates).mean())


def coverage(
    num_classes: int, images_per_class: int, num_draws: int, metrics: Sequence[MetricName] = METRICS
) -> dict[str, tuple[float, float]]:
    """Return the coverage and the mean width of each metric's interval."""
    rng = np.random.default_rng(0)
    inside, widths = np.zeros((num_draws, len(metrics))), np.zeros((num_draws, len(metrics)))
    for draw in range(num_draws):
        rates = draw_rates(rng, num_classes)
        confusion: Counts = np.stack([rng.multinomial(images_per_class, rate) for rate in rates])
        for at, metric in enumerate(metrics):
            low, high = confusion_interval(metric, confusion)
            inside[draw, at] = low <= true_value(metric, rates) <= high
            widths[draw, at] = high - low
    means = zip(inside.mean(axis=0), widths.mean(axis=0), strict=True)
    return {metric: (float(share), float(width)) for metric, (share, width) in zip(metrics, means, strict=True)}


def main() -> None:
    """Print a row of a Markdown table for each number of classes and images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    num_draws = parser.parse_args().draws
    print(f"{num_draws} draws each; coverage (mean width)\n")
    print("| classes | images per class | accuracy | balanced accuracy | macro-F1 |\n| --- | --- | --- | --- | --- |")
    for num_classes, images in product(CLASSES, IMAGES):
        cells = (
            f"{100 * share:.1f} % ({width:.2f})" for share, width in coverage(num_classes, images, num_draws).values()
        )
        print(f"| {num_classes} | {images} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
