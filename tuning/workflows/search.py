"""A search as its steps share it, and how it is announced."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from data.audit.report import Audit
from data.dataset.dataset import Dataset
from data.sources.base import SPLITS
from tuning import __version__
from tuning.common.events import AuditCompleted, EventBus, SearchStarted
from tuning.common.formatting import search_name
from tuning.common.redaction import without_credentials
from tuning.common.search_paths import SearchPaths
from tuning.common.signals import SignalHandler
from tuning.recipe.schema import Recipe
from tuning.search.result_warnings import split_warnings
from tuning.tracking.connection import tracking_uri
from tuning.tracking.parent_run import ParentRun
from tuning.workflows.context import Context
from tuning.workflows.preflight import SearchInputs


@dataclass(frozen=True)
class Search:
    """A search in its parent run, as its steps share it; the recipe is without ``auto`` values."""

    recipe: Recipe
    inputs: SearchInputs
    parent: ParentRun
    context: Context

    @property
    def signals(self) -> SignalHandler:
        """Stop requests of the user."""
        return self.context.signals

    @property
    def bus(self) -> EventBus:
        """The event bus."""
        return self.context.bus

    @property
    def dataset(self) -> Dataset:
        """The data set."""
        return self.inputs.dataset

    @property
    def run_name(self) -> str:
        """The name of its run, before the result is known."""
        return search_name(self.recipe.name or self.dataset.name, self.recipe.budget_s, self.recipe.max_trials)

    @cached_property
    def paths(self) -> SearchPaths:
        """The files of the search."""
        return SearchPaths.from_search_id(self.parent.run_id)


def announce(search: Search, command: str, data_audit: Audit | None = None) -> None:
    """Emit the start of a search and its audit, and warn of small splits before any time is spent."""
    dataset, parent = search.dataset, search.parent
    experiment = search.recipe.name or dataset.name
    if parent.client is not None:
        experiment = parent.client.get_experiment(parent.experiment_id).name
    started = SearchStarted(
        version=__version__,
        command=command,
        data=dataset.name,
        images={split: len(dataset.split(split)) for split in SPLITS},
        classes=len(dataset.classes),
        run_id=parent.run_id,
        experiment=experiment,
        seed=search.recipe.seed,
        tracking_uri=without_credentials(tracking_uri()) if parent.client is not None else "",
    )
    search.bus.emit(started)
    if data_audit is not None:
        search.bus.emit(AuditCompleted(data_audit, tuple(search.recipe.command_arguments())))
    for warning in split_warnings(dataset):
        search.bus.warning(warning)
