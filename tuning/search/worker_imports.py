"""What every trial imports: it takes seconds, so Ray's workers import this module in advance."""

from __future__ import annotations

import gc
import importlib

from models.backbones.timm_import import import_timm

MODULES = (
    "ray.tune",
    "tuning.search.trial_worker",
    "models.training.checkpoint",
    "models.features.trial_features",
    "models.training.loop",
    "models.training.probe",
    "sklearn.linear_model",
)

gc.disable()  # a tenth of the time of imports
for name in MODULES:
    importlib.import_module(name)
import_timm()
gc.freeze()
gc.enable()
