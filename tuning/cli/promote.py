"""Decide whether the model that a search or a training packaged becomes champion."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel
from tuning.cli.parser import parse

EXAMPLE = "python -m tuning promote --run PARENT_RUN_ID"


class PromoteOptions(FrozenModel):
    """The options of ``promote``."""

    run: str = Field("", description="id of the parent run of a search, or of a training")
    name: str = Field("", description="of a registered model, with --version instead of --run")
    version: int | None = Field(None, ge=1, description="of that model, to be decided about (again)")
    force: str = Field("", description="your reason to make it champion whatever the gate says; it is kept")


OPTIONS = PromoteOptions


def run(arguments: Sequence[str]) -> int:
    """Register the candidate of a run or a version, and decide about it on its own test pictures."""
    options = parse(PromoteOptions, arguments)
    by_version = bool(options.name) and options.version is not None
    if bool(options.run) == by_version or bool(options.name) != (options.version is not None):
        given = " ".join(f"--{name}" for name in ("run", "name", "version") if getattr(options, name))
        raise SettingError(
            f"either --run RUN_ID or --name NAME with --version N must be given, got {given or 'none of them'}; "
            "give the one or the other"
        )
    from data.errors import DataError
    from data.load_dataset import load_dataset
    from tuning.common.event_bus import print_table
    from tuning.common.formatting import format_decision
    from tuning.registry.candidate_store import load_candidate, load_candidate_of_version
    from tuning.registry.promotion import promote
    from tuning.tracking.connection import connect, pop_run_id_from_env

    pop_run_id_from_env()
    client = connect()
    if options.version is None:
        candidate = load_candidate(client, options.run)
    else:
        candidate = load_candidate_of_version(client, options.name, options.version)
    dataset = load_dataset(candidate.data)
    if dataset.fingerprint != candidate.data_fingerprint:
        raise DataError(
            f"promote compares on the pictures that the candidate was measured on, but {candidate.data} has changed "
            f"since (fingerprint {dataset.fingerprint} instead of {candidate.data_fingerprint}); search again."
        )
    version, promotion = promote(client, candidate, dataset, options.force)
    print_table(format_decision(candidate, version, promotion))
    return 0
