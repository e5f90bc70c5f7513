"""Coverage of the confidence intervals of balanced accuracy and macro-F1 on simulated predictions.

Run ``python -m benchmarks.intervals``; it takes about 4 minutes. A 95 % interval should contain the true value in 93 to
97 % of the draws, also with few images and if all of them are classified correctly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np

from models.evaluation.intervals import mean_interval
from models.evaluation.metrics import Counts, Floats, MetricName, balanced_accuracy, macro_f1

CLASSES, IMAGES = (2, 5, 20, 50), (1, 3, 10, 100)
METRICS: dict[MetricName, Callable[[Counts], Floats]] = {"balanced_accuracy": balanced_accuracy, "macro_f1": macro_f1}
RECALLS = ((0.98, 0.0), (0.9, 0.0), (0.9, 0.1), (0.7, 0.25))  # mean, and standard deviation between classes


def coverage(
    num_classes: int, images_per_class: int, recall: float, spread: float, num_draws: int
) -> tuple[float, float, float]:
    """Return the coverage of balanced accuracy and of macro-F1, and the mean width of the first."""
    rng = np.random.default_rng(0)
    hits, widths = np.zeros(2), 0.0
    for _ in range(num_draws):
        recalls = np.clip(recall + spread * rng.standard_normal(num_classes), 0.05, 1)
        rates = np.zeros((num_classes, num_classes))
        for row, value in enumerate(recalls):
            rates[row] = np.insert(rng.dirichlet(np.full(num_classes - 1, 0.5)) * (1 - value), row, value)
        confusion = np.stack([rng.multinomial(images_per_class, rate) for rate in rates])
        expected = (1e9 * rates).astype(np.int64)  # the confusion matrix of infinitely many images
        for at, name in enumerate(METRICS):
            low, high = mean_interval(confusion, name)
            truth = METRICS[name](expected)
            hits[at] += low <= truth <= high
            widths += (high - low) * (at == 0)
    return hits[0] / num_draws, hits[1] / num_draws, widths / num_draws


def main() -> None:
    """Print a row for each number of classes and images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=300)
    num_draws = parser.parse_args().draws
    print(f"{'classes':>7} {'images':>6} {'recall':>6} {'spread':>6} {'bal. acc.':>9} {'macro-F1':>8} {'width':>6}")
    for (num_classes, images), (recall, spread) in product(product(CLASSES, IMAGES), RECALLS):
        row = coverage(num_classes, images, recall, spread, num_draws)
        print(f"{num_classes:7} {images:6} {recall:6} {spread:6} {row[0]:9.3f} {row[1]:8.3f} {row[2]:6.3f}", flush=True)


if __name__ == "__main__":
    main()
