"""Decide whether the packaged model of a search or a training run becomes champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from data.errors import SettingError
from data.frozen_model import FrozenModel

if TYPE_CHECKING:
    from tuning.common.promotion_types import Candidate, Promotion

EXAMPLE = "freezeline promote PARENT_RUN_ID"
POSITIONALS = ("run",)


class Options(FrozenModel):
    """The options of ``promote``."""

    run: str = Field("", description="ID of a search's parent run, or of a run of train")
    name: str = Field("", description="name of a registered model, with --version instead of --run")
    version: int | None = Field(None, ge=1, description="version of that model to decide about")
    force: str = Field(
        "", description="make it champion regardless of the gate; the value is the reason, which is recorded"
    )


def run(options: Options, _mlflow_run_id: str | None) -> int:
    """Register the candidate of a run or a version, and decide about it on its test images."""
    from tuning.common.formatting import format_decision
    from tuning.ui.console import print_tables

    print_tables(format_decision(*promote_candidate(options)))
    return 0


def promote_candidate(options: Options) -> tuple[Candidate, int, Promotion]:
    """Register a candidate and decide about it; return it with its version and the decision.

    Raises:
        UserError: there is no such candidate, or its images have changed.
    """
    by_version = bool(options.name) and options.version is not None
    if bool(options.run) == by_version or bool(options.name) != (options.version is not None):
        received = " ".join(f"--{name}" for name in ("run", "name", "version") if getattr(options, name))
        raise SettingError(
            f"either --run RUN_ID, or --name NAME with --version N, must be given, got {received or 'none of them'}; "
            "use one form"
        )
    from data.errors import DataError
    from data.load_dataset import load_dataset
    from tuning.registry.candidate_store import load_candidate, load_candidate_of_version
    from tuning.registry.promotion import promote
    from tuning.tracking.connection import connect_to_existing

    client = connect_to_existing()
    if options.version is None:
        candidate = load_candidate(client, options.run)
    else:
        candidate = load_candidate_of_version(client, options.name, options.version)
    dataset = load_dataset(candidate.data_options or candidate.data)
    if dataset.fingerprint != candidate.data_fingerprint:
        raise DataError(
            f"promote needs the images on which the candidate was evaluated, but {candidate.data} has changed since "
            f"(fingerprint {dataset.fingerprint} instead of {candidate.data_fingerprint}); start a new search."
        )
    return candidate, *promote(client, candidate, dataset, options.force)
