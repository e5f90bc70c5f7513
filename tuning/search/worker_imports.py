"""What every trial imports: it takes seconds, so Ray's workers import this module in advance."""

from __future__ import annotations

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

for name in MODULES:
    importlib.import_module(name)
import_timm()
