"""Recorded values that a change of names or structure must not change.

``python -m tests.golden`` records them again. A commit that changes a recorded value must name it and give the reason.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def recorded(name: str) -> Any:
    """Return the recorded value called ``name``."""
    return json.loads((FOLDER / f"{name}.json").read_text())
