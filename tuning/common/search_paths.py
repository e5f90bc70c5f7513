"""Where a search keeps its state. Nobody else joins these paths."""

from __future__ import annotations

from pathlib import Path

from data.atomic_write import write_atomically
from data.errors import TrackingError
from data.frozen_model import FrozenModel
from data.home import state_dir

STATE_SCHEMA = 2  # changes with the names of files and fields that a search keeps


class SearchPaths:
    """The folder of one search, under ``home()/searches``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, search_id: str) -> SearchPaths:
        """Return the paths of the search whose parent run is ``search_id``; create its folder if there is none."""
        paths = cls(state_dir() / "searches" / search_id)
        if not paths.root.exists():
            paths.root.mkdir(parents=True)
            write_atomically(paths.schema, str(STATE_SCHEMA).encode())
        return paths

    @classmethod
    def all(cls) -> list[SearchPaths]:
        """Return the paths of every search that has a folder, oldest first."""
        roots = [root for root in (state_dir() / "searches").glob("*") if root.is_dir()]
        return [cls(root) for root in sorted(roots, key=lambda root: root.stat().st_mtime)]

    @property
    def schema(self) -> Path:
        """The number of the format that the search's files are in."""
        return self.root / "schema"

    @property
    def has_current_schema(self) -> bool:
        """Whether this version can read the search's files."""
        return self.schema.exists() and self.schema.read_text() == str(STATE_SCHEMA)

    def check_schema(self) -> None:
        """Refuse the files of another version.

        Raises:
            TrackingError: the files are in another format.
        """
        if not self.has_current_schema:
            found = self.schema.read_text() if self.schema.exists() else "none"
            raise TrackingError(
                f"a search must have been started by this version (state schema {STATE_SCHEMA}), "
                f"got {self.root} with schema {found}; start a new search"
            )

    @property
    def recipe(self) -> Path:
        """The merged recipe as JSON."""
        return self.root / "recipe.json"

    @property
    def dataset(self) -> Path:
        """The data set's value as JSON."""
        return self.root / "dataset.json"

    def write(self, recipe: FrozenModel, dataset: FrozenModel) -> None:
        """Keep what a worker and a resumed search need."""
        write_atomically(self.recipe, recipe.to_json(indent=2).encode())
        write_atomically(self.dataset, dataset.to_json().encode())

    @property
    def journal(self) -> Path:
        """Optuna's journal: the persistent study."""
        return self.root / "study.journal"

    @property
    def outbox(self) -> Path:
        """What is to be delivered to MLflow."""
        return self.root / "outbox.jsonl"

    @property
    def target(self) -> Path:
        """Which experiment and run the spool is for."""
        return self.root / "target.json"

    @property
    def artifacts(self) -> Path:
        """Files that are to become artifacts."""
        return self.root / "artifacts"

    @property
    def deferred(self) -> Path:
        """What the end of the search could not do without the server."""
        return self.root / "deferred.json"

    @property
    def ray(self) -> Path:
        """Ray Tune's own files."""
        return self.root / "ray"

    @property
    def package(self) -> Path:
        """The winner's packaged form."""
        return self.root / "package"

    @property
    def elapsed(self) -> Path:
        """Seconds that the search has taken so far, as text."""
        return self.root / "elapsed_s"

    @property
    def packaged_winner(self) -> Path:
        """The trial that was measured and packaged, and the candidate that came of it."""
        return self.root / "packaged_winner.json"

    @property
    def report(self) -> Path:
        """The report of the finished search."""
        return self.root / "report.html"

    @property
    def trials(self) -> Path:
        """The folder of all trials' files."""
        return self.root / "trials"

    def weights(self, trial_uid: str, epoch: int) -> Path:
        """The weights of a trial after an epoch that was its best so far."""
        return self.trials / f"{trial_uid}.{epoch}.safetensors"

    def started_marker(self, trial_uid: str) -> Path:
        """The sign that a worker has begun a trial."""
        return self.trials / f"{trial_uid}.started"

    def checkpoint(self, trial_uid: str) -> Path:
        """What a trial that was stopped goes on from."""
        return self.trials / f"{trial_uid}.checkpoint"
