"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.trial_config import FitConfig

MAX_WARMUP_STEPS = 20  # a new head's first gradients are large, and Adam's first moment estimates are poor
NUM_STEP_DECAYS = 3  # ``step``: the learning rate is divided by 10 after each third of the epochs
PLATEAU_FACTOR = 0.3  # ``plateau``: the learning rate is multiplied by this factor ...
PLATEAU_PATIENCE = 2  # ... after this many epochs without a lower validation loss
# ``one_cycle``: defaults of fastai and torch, after Smith & Topin, "Super-Convergence" (2017).
ONE_CYCLE_RISE_FRACTION = 0.3  # share of the steps in which the learning rate rises ...
ONE_CYCLE_START_FACTOR = 0.04  # ... starting from this share of its maximum


def lr_factor(config: FitConfig, step: int, steps_per_epoch: int, val_losses: Sequence[float]) -> float:
    """Return the learning-rate multiplier after ``step`` steps and epochs with these validation losses."""
    progress = step / (steps_per_epoch * config.max_epochs)
    if config.lr_scheduler == "one_cycle":
        return one_cycle(progress)
    warmup = min(1.0, (step + 1) / (min(MAX_WARMUP_STEPS, steps_per_epoch) + 1))
    if config.lr_scheduler == "cosine":
        return warmup * (1 + math.cos(math.pi * progress)) / 2
    if config.lr_scheduler == "step":
        return warmup * 0.1 ** num_step_decays(config, step // steps_per_epoch)
    return warmup * plateau_factor(val_losses) if config.lr_scheduler == "plateau" else warmup


def num_step_decays(config: FitConfig, epoch: int) -> int:
    """Return how many times the ``step`` schedule has lowered the learning rate before an epoch (from 0)."""
    if config.step_epochs:
        return epoch // config.step_epochs
    return NUM_STEP_DECAYS * epoch // config.max_epochs


def one_cycle(progress: float) -> float:
    """Return the learning-rate factor after a share of the steps: cosine rise to 1, then cosine decay to 0."""
    if progress < ONE_CYCLE_RISE_FRACTION:
        rise = (1 - math.cos(math.pi * progress / ONE_CYCLE_RISE_FRACTION)) / 2
        return ONE_CYCLE_START_FACTOR + (1 - ONE_CYCLE_START_FACTOR) * rise
    return (1 + math.cos(math.pi * (progress - ONE_CYCLE_RISE_FRACTION) / (1 - ONE_CYCLE_RISE_FRACTION))) / 2


def plateau_factor(val_losses: Sequence[float]) -> float:
    """Return the learning-rate factor of ``plateau`` after epochs with these validation losses."""
    factor, best_loss, num_bad_epochs = 1.0, math.inf, 0
    for loss in val_losses:
        num_bad_epochs = 0 if loss < best_loss else num_bad_epochs + 1
        best_loss = min(loss, best_loss)
        if num_bad_epochs >= PLATEAU_PATIENCE:
            factor *= PLATEAU_FACTOR
            num_bad_epochs = 0
    return factor
