"""Searches without the slow parts of their end: ``python -m tests.system.quick COMMAND`` instead of ``-m tuning``.

The tests of other behavior use them. ``test_search``, ``test_mlflow_run`` and ``tests/models`` use the real parts.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

import pytest

MODULE = "tests.system.quick"
NO_BUDGET_S = -1.0


def make_searches_quick(patch: pytest.MonkeyPatch) -> None:
    """Measure no serving costs, and do not load registered versions in a clean process."""
    patch.setattr("tuning.workflows.winner.COST_MEASUREMENT_BUDGET_S", NO_BUDGET_S)
    patch.setattr("tuning.workflows.work_ahead.WorkAhead._step", lambda _: False)
    patch.setattr("tuning.registry.promotion.verify_model_loads", lambda *_: None)
    patch.setattr("tuning.workflows.finalize._clean_process", lambda _: nullcontext())


if __name__ == "__main__":
    from tuning.__main__ import main
    from tuning.common.environment import DEFAULTS

    # As in main, but before the import of MLflow by the modules whose parts are replaced.
    os.environ.update({name: value for name, value in DEFAULTS.items() if name not in os.environ})
    with pytest.MonkeyPatch.context() as context:
        make_searches_quick(context)
        sys.exit(main(sys.argv[1:]))
