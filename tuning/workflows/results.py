"""Results of the Python interface: a search, a training, predictions and a promotion as values with tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from data.errors import TrackingError
from data.text import pluralize
from models.packaging.inference import Prediction
from models.trial_config import TrialConfig
from tuning.common.option_types import ParamValue
from tuning.common.promotion_types import Candidate, Promotion
from tuning.common.search_paths import SearchPaths
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Recipe
from tuning.registry.build_candidate import PackagedWinner
from tuning.registry.candidate_store import load_model
from tuning.search.leaderboard import leaderboard_frame
from tuning.search.study import load_study, trials_of
from tuning.search.time_budget import Elapsed
from tuning.tracking.parent_run import find_searches
from tuning.ui.result_text import time_text

if TYPE_CHECKING:
    import numpy as np
    import optuna
    import pandas as pd
    import PIL.Image
    from mlflow.pyfunc import PyFuncModel

REPORT_HEIGHT = 700  # pixels of a report in a notebook


class Metric(NamedTuple):
    """A metric on the test images with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [95% CI {self.low:.4f}, {self.high:.4f}]"


Image: TypeAlias = "str | Path | bytes | PIL.Image.Image | np.ndarray"


@dataclass(frozen=True)
class Model:
    """A packaged model; ``pyfunc`` is MLflow's own object."""

    pyfunc: PyFuncModel

    @classmethod
    def load(cls, model_uri: str) -> Model:
        """Load a model by its address, for example ``models:/photos@champion``.

        Raises:
            TrackingError: there is no such model.
        """
        return cls(load_model(model_uri))

    def predict(self, images: Image | Sequence[Image], reject: float = 1.0) -> pd.DataFrame:
        """Return a row per image: label, score, error, novelty if there is any, and the probability of each class.

        The label is empty if the novelty is above ``reject``. An image is a path, the bytes of a file, a PIL image or
        an array (uint8 [height, width, 3]).
        """
        import pandas as pd

        items = list(images) if isinstance(images, (list, tuple)) else [images]
        inputs = [Path(item) if isinstance(item, str) else item for item in items]
        frame = pd.DataFrame({"image": pd.Series(inputs, dtype=object)})
        return self.pyfunc.predict(frame, {"reject": reject} if reject < 1 else None)


class PromotionResult(NamedTuple):
    """The registry's decision about a model: its version, its new alias and the reason, with the numbers behind it."""

    candidate: Candidate
    version: int
    promotion: Promotion

    @property
    def alias(self) -> str:
        """``champion`` or ``challenger``."""
        return self.promotion.alias

    @property
    def reason(self) -> str:
        """The reason of the decision."""
        return self.promotion.reason

    @property
    def model_uri(self) -> str:
        """The address of the model in the registry, by its alias."""
        return f"models:/{self.candidate.name}@{self.promotion.alias}"

    def __str__(self) -> str:
        return f"{self.model_uri} is now version {self.version}: {self.promotion.reason}."

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Report:
    """The HTML report of a search, which a notebook displays."""

    path: Path

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="{REPORT_HEIGHT}" style="border:0"></iframe>'


@dataclass(frozen=True)
class TrainingResult:
    """A packaged model that was evaluated on the test images, and not registered."""

    candidate: Candidate

    @property
    def run_id(self) -> str:
        """The MLflow run of the training; for a search, of its parent."""
        return self.candidate.run_id

    @property
    def test_metrics(self) -> dict[str, Metric]:
        """Accuracy, balanced accuracy and macro-F1 on the test images."""
        return {
            name.removeprefix("test_"): Metric(self.candidate.metrics[name], *interval)
            for name, interval in self.candidate.intervals.items()
        }

    @property
    def best_config(self) -> TrialConfig:
        """Everything needed to train the model again; of several networks (``candidate.members``), the weightiest."""
        return max(self.candidate.members, key=lambda member: member.weight).config

    @cached_property
    def model(self) -> Model:
        """The packaged model."""
        return Model.load(self.candidate.model_uri or str(self._paths.package))

    def __str__(self) -> str:
        metrics = [f"{name} on test: {metric}" for name, metric in self.test_metrics.items()]
        return "\n".join([self._title, *metrics])

    __repr__ = __str__

    @property
    def _title(self) -> str:
        return f"training {self.run_id}"

    @property
    def _paths(self) -> SearchPaths:
        return SearchPaths.from_search_id(self.run_id)


@dataclass(frozen=True)
class SearchResult(TrainingResult):
    """A finished search: its trials, the winner on the test images, and the registry's decision.

    Attributes:
        trials: all trials by number.
        winner: the trial that won; of an ensemble the member with the largest weight.
        choice: how the winner was chosen, and how good it was expected to be before the test.
        promotion: the registry's decision; None if the MLflow server was not available.
        warnings: reasons to distrust the result.
    """

    trials: tuple[TrialRecord, ...]
    winner: TrialRecord
    choice: str
    promotion: PromotionResult | None
    warnings: tuple[str, ...]

    @classmethod
    def load(cls, run_id: str) -> SearchResult:
        """Return the result of the search with this parent run from its folder.

        Raises:
            TrackingError: this machine has no such search, or it has no model yet.
        """
        (paths,) = find_searches(run_id)
        paths.check_schema()
        if not paths.packaged_winner.exists():
            raise TrackingError(f"run must be a search that has a model, got {run_id!r}, which has none yet; resume it")
        packaged = PackagedWinner.from_json(paths.packaged_winner.read_text())
        promotion = None
        if packaged.version is not None and packaged.promotion is not None:
            promotion = PromotionResult(packaged.candidate, packaged.version, packaged.promotion)
        trials = trials_of(load_study(paths))
        winner = next(trial for trial in trials if trial.trial_uid == packaged.trial_uids[0])
        return cls(packaged.candidate, trials, winner, packaged.choice, promotion, packaged.warnings)

    @property
    def best_params(self) -> dict[str, ParamValue]:
        """The searched settings of the winner by their option names."""
        return self.winner.settings

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """A row for each trial, best first: status, metrics of the best epoch, and settings."""
        return leaderboard_frame(self.trials)

    def to_dataframe(self) -> pd.DataFrame:
        """Return the leaderboard."""
        return self.leaderboard

    @cached_property
    def study(self) -> optuna.Study:
        """The search's Optuna study, for Optuna's own charts; do not add trials to it."""
        return load_study(self._paths)

    @property
    def report(self) -> Report:
        """The report; a notebook displays it."""
        return Report(self._paths.report)

    @property
    def time(self) -> str:
        """The time of the search, and by how much it exceeded the budget."""
        recipe = Recipe.from_json(self._paths.recipe.read_text())
        return time_text(Elapsed.load(self._paths.elapsed), recipe.budget_s)

    def __str__(self) -> str:
        lines = [super().__str__(), *([self.choice] if self.choice else [])]
        lines += [str(self.promotion)] if self.promotion else []
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([*lines, f"time: {self.time}"])

    __repr__ = __str__

    @property
    def _title(self) -> str:
        trials = pluralize(len(self.trials), "trial")
        return f"search {self.run_id}: {trials}, the winner is trial {self.winner.number}"


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """A prediction for each file, in order."""

    items: tuple[Prediction, ...]

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204  # an int or a slice
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row for each file: label, score, error, novelty if there is any, and the classes' probabilities."""
        import pandas as pd

        rows = [
            {"file": str(each.file), "label": each.label, "score": each.score, "error": each.error}
            | ({} if each.novelty is None else {"novelty": each.novelty})
            | dict(each.probabilities)
            for each in self.items
        ]
        return pd.DataFrame(rows)
