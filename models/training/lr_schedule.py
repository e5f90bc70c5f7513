"""Learning-rate schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

WARMUP_STEPS = 20  # at most; a new head's first gradients are large, and Adam's first estimates are poor
STEPS_DOWN = 3  # ``step``: the learning rate is divided by ten at each third of the epochs
PLATEAU_FACTOR = 0.3  # ``plateau``: what the learning rate is multiplied by ...
PLATEAU_EPOCHS = 2  # ... after so many epochs without a lower validation loss
CYCLE_RISE = 0.3  # ``one_cycle``: share of the steps in which the learning rate rises ...
CYCLE_START = (
    0.04  # ... from so much of it; as fastai and torch have it, after Smith & Topin, "Super-Convergence" (2017)
)


def one_cycle(done: float) -> float:
    """Return the factor after a share of the steps: half a cosine up, and half a cosine down to 0."""
    if done < CYCLE_RISE:
        return CYCLE_START + (1 - CYCLE_START) * (1 - math.cos(math.pi * done / CYCLE_RISE)) / 2
    return (1 + math.cos(math.pi * (done - CYCLE_RISE) / (1 - CYCLE_RISE))) / 2


@dataclass
class ReduceOnPlateau:
    """Lowers the learning rate when the validation loss stops falling."""

    factor: float = 1.0
    lowest: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> None:
        self.waited = 0 if loss < self.lowest else self.waited + 1
        self.lowest = min(loss, self.lowest)
        if self.waited >= PLATEAU_EPOCHS:
            self.factor *= PLATEAU_FACTOR
            self.waited = 0
