"""Paths of the state of a search; other modules take them from here."""

from __future__ import annotations

from pathlib import Path

from data.atomic_write import write_atomically
from data.errors import TrackingError
from data.frozen_model import FrozenModel
from data.home import state_dir

STATE_SCHEMA = 3  # increase it when a file or field of the state is renamed


class SearchPaths:
    """The folder of a search, below ``state_dir()/searches``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def from_search_id(cls, search_id: str) -> SearchPaths:
        """Return the paths of the search with parent run ``search_id``; create its folder if needed."""
        paths = cls(state_dir() / "searches" / search_id)
        if not paths.root.exists():
            paths.root.mkdir(parents=True)
            write_atomically(paths.schema, str(STATE_SCHEMA).encode())
        return paths

    @classmethod
    def all(cls) -> list[SearchPaths]:
        """Return the paths of all searches, oldest first."""
        roots = [root for root in (state_dir() / "searches").glob("*") if root.is_dir()]
        return [cls(root) for root in sorted(roots, key=lambda root: root.stat().st_mtime)]

    @property
    def schema(self) -> Path:
        """The schema number of the search's files."""
        return self.root / "schema"

    @property
    def has_current_schema(self) -> bool:
        """Whether the files have the schema of this version."""
        return self.schema.exists() and self.schema.read_text() == str(STATE_SCHEMA)

    def check_schema(self) -> None:
        """Check that the files have the schema of this version.

        Raises:
            TrackingError: the files have a different schema.
        """
        if not self.has_current_schema:
            schema = self.schema.read_text() if self.schema.exists() else "none"
            raise TrackingError(
                f"a search must have been started by this version (state schema {STATE_SCHEMA}), "
                f"got {self.root} with schema {schema}; start a new search"
            )

    @property
    def recipe(self) -> Path:
        """The merged recipe as JSON."""
        return self.root / "recipe.json"

    @property
    def dataset(self) -> Path:
        """The data set as JSON."""
        return self.root / "dataset.json"

    def write(self, recipe: FrozenModel, dataset: FrozenModel) -> None:
        """Write the recipe and the data set for the workers and for a resumed search."""
        write_atomically(self.recipe, recipe.to_json(indent=2).encode())
        write_atomically(self.dataset, dataset.to_json().encode())

    @property
    def journal(self) -> Path:
        """The journal of the Optuna study."""
        return self.root / "study.journal"

    @property
    def outbox(self) -> Path:
        """The outbox: operations to be delivered to MLflow."""
        return self.root / "outbox.jsonl"

    @property
    def target(self) -> Path:
        """The experiment and run to which the outbox is delivered."""
        return self.root / "target.json"

    @property
    def artifacts(self) -> Path:
        """Files to be logged as artifacts."""
        return self.root / "artifacts"

    @property
    def deferred(self) -> Path:
        """The promotion that was deferred because the server was unreachable."""
        return self.root / "deferred.json"

    @property
    def ray(self) -> Path:
        """The files of Ray Tune."""
        return self.root / "ray"

    @property
    def package(self) -> Path:
        """The winner's package."""
        return self.root / "package"

    @property
    def elapsed(self) -> Path:
        """The elapsed time of the search in seconds, as text."""
        return self.root / "elapsed_s"

    @property
    def packaged_winner(self) -> Path:
        """The winning trial that was evaluated and packaged, with its candidate."""
        return self.root / "packaged_winner.json"

    @property
    def report(self) -> Path:
        """The report of the finished search."""
        return self.root / "report.html"

    @property
    def trials(self) -> Path:
        """The folder of the trials' files."""
        return self.root / "trials"

    def weights(self, trial_uid: str, epoch: int) -> Path:
        """The weights of a trial after ``epoch``, its best epoch so far."""
        return self.trials / f"{trial_uid}.{epoch}.safetensors"

    def all_weights(self, trial_uid: str) -> list[Path]:
        """The existing weights files of a trial."""
        return list(self.trials.glob(f"{trial_uid}.*.safetensors"))

    def checkpoint(self, trial_uid: str) -> Path:
        """The checkpoint from which a stopped trial resumes."""
        return self.trials / f"{trial_uid}.checkpoint"
