"""Calibration on simulated logits: how often the temperature of a small validation split makes new images worse.

Run ``python -m benchmarks.calibration``; it takes about 3 minutes. Each draw simulates a network whose logits are those
of a calibrated classifier times a known factor (above 1: overconfident). The temperature comes from a validation split
of n images; the expected calibration error is measured on 2,000 other images before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import numpy as np

from models.evaluation.calibration import (
    Floats,
    Labels,
    choose_temperature,
    expected_calibration_error,
    fit_temperature,
    softmax,
)

COUNTS, CLASSES, FACTORS, SEPARATIONS = (20, 50, 100, 200, 500), (2, 5, 20), (0.7, 1.0, 1.5, 2.0), (1.5, 2.5, 3.5)
NUM_TEST_IMAGES = 2000
TOLERANCE = 0.01  # of the calibration error


class Draw(NamedTuple):
    """The calibration error on new images, before and after calibration on ``num_images`` validation images."""

    num_images: int
    factor: float
    before: float
    after: float


def simulate(
    count: int,
    num_classes: int,
    factor: float,
    separation: float,
    seed: int,
    choose: Callable[[Floats, Labels], float] = choose_temperature,
) -> Draw:
    """Return one draw; ``separation`` is the distance of the classes in standard deviations."""
    rng = np.random.default_rng(seed)
    temperature = choose(*_predictions(count, num_classes, factor, separation, rng))
    logits, labels = _predictions(NUM_TEST_IMAGES, num_classes, factor, separation, rng)
    before, after = (expected_calibration_error(softmax(logits, each), labels) for each in (1.0, temperature))
    return Draw(count, factor, before, after)


def _predictions(
    count: int, num_classes: int, factor: float, separation: float, rng: np.random.Generator
) -> tuple[Floats, Labels]:
    """Return logits [n, k] and labels [n] of normally distributed classes: their log-odds times ``factor``."""
    labels = rng.integers(0, num_classes, count)
    features = rng.normal(0, 1, (count, num_classes))
    features[np.arange(count), labels] += separation
    return factor * separation * features, labels


def main() -> None:
    """Print a row for each number of validation images and factor, with and without the rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=40, help="draws for each of the 180 settings")
    num_draws = parser.parse_args().draws
    rules = {"chosen": choose_temperature, "always fitted": fit_temperature}
    print(f"{'rule':14} {'images':>6} {'factor':>6} {'draws':>6} {'not worse':>9} {'before':>7} {'after':>7}")
    for (rule, choose), count, factor in product(rules.items(), COUNTS, FACTORS):
        draws = [
            simulate(count, num_classes, factor, separation, seed, choose)
            for num_classes, separation, seed in product(CLASSES, SEPARATIONS, range(num_draws))
        ]
        not_worse = np.mean([draw.after <= draw.before + TOLERANCE for draw in draws])
        before, after = np.mean([draw.before for draw in draws]), np.mean([draw.after for draw in draws])
        print(f"{rule:14} {count:6} {factor:6} {len(draws):6} {not_worse:9.3f} {before:7.4f} {after:7.4f}", flush=True)


if __name__ == "__main__":
    main()
