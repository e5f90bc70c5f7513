"""Paths of the state of a search; other modules take them from here."""

from __future__ import annotations

from pathlib import Path

from data.atomic_write import write_atomically
from data.errors import TrackingError
from data.frozen_model import FrozenModel
from data.home import state_dir

STATE_SCHEMA = 6  # increase it when a file or field of the state changes its name or meaning


class SearchPaths:
    """The folder of a search, below ``state_dir()/searches``.

    Attributes:
        schema: the schema number of these files.
        recipe: the merged recipe as JSON.
        dataset: the data set as JSON.
        journal: the journal of the Optuna study.
        outbox: operations to be delivered to MLflow.
        target: the experiment and run to which the outbox is delivered.
        artifacts: files to be logged as artifacts.
        deferred: the promotion that was deferred because the server was unreachable.
        ray: the files of Ray Tune.
        heartbeat: modified when a worker shows a sign of life.
        package: the winner's package.
        elapsed: the elapsed time of the search in seconds, as text.
        packaged_winner: the winning trial that was evaluated and packaged, with its candidate.
        report: the report of the finished search.
        trials: the folder of the trials' files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.schema = root / "schema"
        self.recipe = root / "recipe.json"
        self.dataset = root / "dataset.json"
        self.journal = root / "study.journal"
        self.outbox = root / "outbox.jsonl"
        self.target = root / "target.json"
        self.artifacts = root / "artifacts"
        self.deferred = root / "deferred.json"
        self.ray = root / "ray"
        self.heartbeat = root / "heartbeat"
        self.package = root / "package"
        self.elapsed = root / "elapsed_s"
        self.packaged_winner = root / "packaged_winner.json"
        self.report = root / "report.html"
        self.trials = root / "trials"

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

    def write(self, recipe: FrozenModel, dataset: FrozenModel) -> None:
        """Write the recipe and the data set for the workers and for a resumed search."""
        write_atomically(self.recipe, recipe.to_json(indent=2).encode())
        write_atomically(self.dataset, dataset.to_json().encode())

    def weights(self, trial_uid: str, epoch: int) -> Path:
        """The weights of a trial after ``epoch``, its best epoch so far."""
        return self.trials / f"{trial_uid}.{epoch}.safetensors"

    def all_weights(self, trial_uid: str) -> list[Path]:
        """The existing weights files of a trial."""
        return list(self.trials.glob(f"{trial_uid}.*.safetensors"))

    def predictions(self, trial_uid: str) -> Path:
        """The predictions of a trial's best epoch for images that it was not trained on."""
        return self.trials / f"{trial_uid}.predictions.npz"

    def refitted_weights(self, trial_uid: str) -> Path:
        """The weights of a linear probe that was fitted on the training and validation images."""
        return self.trials / f"{trial_uid}.refitted.safetensors"

    def final_weights(self, trial_uid: str, epoch: int) -> Path:
        """The weights to package: refitted ones if there are any, else those of the best ``epoch``."""
        refitted = self.refitted_weights(trial_uid)
        return refitted if refitted.exists() else self.weights(trial_uid, epoch)

    def checkpoint(self, trial_uid: str) -> Path:
        """The checkpoint from which a stopped trial resumes."""
        return self.trials / f"{trial_uid}.checkpoint"
