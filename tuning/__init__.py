"""Freezeline: hyperparameter search for fine-tuning image classifiers, with Ray Tune, Optuna and MLflow."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__version__ = "0.5.0"
PACKAGES = ("data", "models", "tuning")


def shadowing_message() -> str:
    """Return a message if another package has the name of one of ours and precedes it on the path, else ``""``."""
    root = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        origin = getattr(sys.modules.get(name), "__file__", None) or getattr(find_spec(name), "origin", None)
        if origin and root not in Path(origin).resolve().parents:
            return (
                f"Freezeline needs its own package {name!r}, but Python finds {origin} first; rename that file or "
                "folder, or run Freezeline from another folder."
            )
    return ""
