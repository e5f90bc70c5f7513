"""What MLflow's UI shows of an experiment: its description, its primary metric, and a view of the runs of each search.

The UI stores a shared view of the table of runs as a tag of the experiment. It is the only way to preset the columns:
by default, the table shows no metric.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuning.common.names import (
    BEST_OBJECTIVE_METRIC,
    NOTE_TAG,
    ORIGIN_TAG,
    PARENT_RUN_TAG,
    PRIMARY_METRIC_TAG,
    PROMOTION_TAG,
    SEARCH_FOLDER_TAG,
    SEARCH_MINUTES_METRIC,
    SHARED_VIEW_TAG,
    STATUS_TAG,
    TEST_METRIC,
    VERSION_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

UI_MODE = "workflowType=machine_learning"  # the UI opens in its GenAI mode without this parameter
VIEW_KEY_LENGTH = 12  # characters of the id of the parent run
SEARCHES_VIEW = "searches"  # the key of the view of all searches of an experiment
BEST, TEST = f"metrics.`{BEST_OBJECTIVE_METRIC}`", f"metrics.`{TEST_METRIC}`"
SEARCH_COLUMNS = (BEST, TEST, f"metrics.`{SEARCH_MINUTES_METRIC}`", f"tags.`{PROMOTION_TAG}`", f"tags.`{VERSION_TAG}`")
TRIAL_COLUMNS = (
    BEST,
    "attributes.`Duration`",
    *(f"params.`{name}`" for name in ("image_size", "freeze_depth", "lr", "optimizer")),
    *(f"tags.`{name}`" for name in (ORIGIN_TAG, STATUS_TAG)),
)
DESCRIPTION = (
    "Searches for the best fine-tune of a pretrained image classifier, by Freezeline: "
    "[all searches by test score]({link}).\n\n"
    "- Each **search** is a parent run: its description has the result, its artifacts have `report.html`.\n"
    "- Each **trial** is a child run. Its score is `best_val_balanced_accuracy`, the validation balanced accuracy of "
    "its best epoch; `val_balanced_accuracy` in tables is that of its last epoch.\n"
    "- `test_balanced_accuracy` of a parent run is the result of its winner on the test images.\n"
)


def view_url(experiment_id: str, key: str) -> str:
    """Return the relative link to the table of runs in a view."""
    return f"#/experiments/{experiment_id}/runs?{UI_MODE}&viewStateShareKey={key}"


def view_key(run_id: str) -> str:
    """Return the key of the view of a search's trials."""
    return run_id[:VIEW_KEY_LENGTH]


def describe_experiment(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Set the description, unless it has one, the primary metric, and the view of the trials of search ``run_id``."""
    tags = {
        NOTE_TAG: DESCRIPTION.format(link=view_url(experiment_id, SEARCHES_VIEW)),
        PRIMARY_METRIC_TAG: BEST_OBJECTIVE_METRIC,
        SHARED_VIEW_TAG + SEARCHES_VIEW: _view(f"tags.`{SEARCH_FOLDER_TAG}` LIKE '%'", TEST, SEARCH_COLUMNS),
        SHARED_VIEW_TAG + view_key(run_id): _view(f"tags.`{PARENT_RUN_TAG}` = '{run_id}'", BEST, TRIAL_COLUMNS),
    }
    existing = client.get_experiment(experiment_id).tags
    for name, value in tags.items():
        if not existing.get(name):
            client.set_experiment_tag(experiment_id, name, value)


def _view(condition: str, order_by: str, columns: Sequence[str]) -> str:
    """Return the state of the UI's table with the runs that meet a condition, the highest value first."""
    return json.dumps(
        {
            "searchFilter": condition,
            "orderByKey": order_by,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(columns),
        }
    )
