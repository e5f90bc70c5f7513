"""Decide whether the model that a search or a training packaged becomes champion."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.values import Value
from tuning.options import parse

EXAMPLE = "python -m tuning promote --run PARENT_RUN_ID"


class PromoteOptions(Value):
    """The options of ``promote``."""

    run: str = Field(min_length=1, description="id of the parent run of a search, or of a training")


OPTIONS = PromoteOptions


def run(arguments: Sequence[str]) -> int:
    """Register the run's candidate and decide about it on its own test pictures."""
    options = parse(PromoteOptions, arguments)
    from data.dataset import load_dataset
    from data.errors import DataError
    from tuning.registry import load_candidate, promote
    from tuning.tracking.parent import connect, take_run_id
    from tuning.views.summary import decision_line, show

    take_run_id()
    client = connect()
    candidate = load_candidate(client, options.run)
    dataset = load_dataset(candidate.data)
    if dataset.fingerprint != candidate.data_fingerprint:
        raise DataError(
            f"promote compares on the pictures that the candidate was measured on, but {candidate.data} has changed "
            f"since (fingerprint {dataset.fingerprint} instead of {candidate.data_fingerprint}); search again."
        )
    version, promotion = promote(client, candidate, dataset)
    show(decision_line(candidate, version, promotion))
    return 0
