"""The monitor workflow: compare the recorded answers of a registered model with those for its test images."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data.errors import TrackingError
from data.text import pluralize
from tuning.common.promotion_types import Candidate
from tuning.monitoring.drift import MIN_IMAGES, DriftTest, compare
from tuning.monitoring.live_accuracy import LiveAccuracy, live_accuracy
from tuning.monitoring.records import Records, read_records
from tuning.monitoring.reference import MonitoringReference, load_reference
from tuning.monitoring.timeline import metrics_of, time_bins
from tuning.registry.candidate_store import find_version, load_candidate_of_version
from tuning.registry.client import retry_when_busy
from tuning.reporting.monitor_page import PAGE, MonitorContent

if TYPE_CHECKING:
    from mlflow import MlflowClient

DAY_S = 86_400.0
NOT_IN_METRIC_NAMES = re.compile(r"[^A-Za-z0-9_\-. /]")
EXPERIMENT_SUFFIX = "-monitoring"  # of a model's experiment: its own, so that searches are listed without these runs


class Monitored(NamedTuple):
    """A registered version with what its package predicts for the test images."""

    model: str
    package_id: str
    candidate: Candidate
    reference: MonitoringReference


def load_monitored(client: MlflowClient, model: str) -> Monitored:
    """Load the facts and the reference of a registered version (see ``find_version``), without its network.

    Raises:
        TrackingError: it does not exist, or it was packaged by a version without monitoring.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    name, version = find_version(client, model)
    candidate = load_candidate_of_version(client, name, version)
    try:
        location = client.get_logged_model(candidate.model_id).artifact_location
        files = [
            Path(mlflow.artifacts.download_artifacts(f"{location}/artifacts/{name}"))
            for name in ("facts.json", "reference.npz")
        ]
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"model must be packaged with the reference that monitor compares with, but {model} has none "
            f"({error}); search or train again"
        ) from None
    package_id = json.loads(files[0].read_text())["package_id"]
    return Monitored(f"{name} version {version}", package_id, candidate, load_reference(files[1]))


def check_window(
    monitored: Monitored,
    folder: Path,
    days: float,
    labels: Mapping[str, str] | None = None,
    until_s: float | None = None,
) -> MonitorContent:
    """Return the comparison of the last days' records in a folder with the test images.

    Raises:
        DataError: there are no records of this model in this time, or none of the labeled images.
    """
    end_s = time.time() if until_s is None else until_s
    classes = monitored.candidate.classes
    window = read_records(folder, monitored.package_id, classes, end_s - days * DAY_S, end_s)
    tests = compare(monitored.reference, window, len(classes))
    live = None
    if labels:
        live = live_accuracy(window, labels, classes, monitored.candidate.intervals["test_accuracy"][0])
    return MonitorContent(
        model=monitored.model,
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        begin=_utc(window.times[0]),
        end=_utc(window.times[-1]),
        package_id=monitored.package_id,
        headline=headline(window, tests, live),
        reference=monitored.reference,
        window=window,
        classes=classes,
        tests=tuple(tests),
        bins=tuple(time_bins(window, classes)),
        live=live,
    )


def headline(window: Records, tests: Sequence[DriftTest], live: LiveAccuracy | None) -> str:
    """Return the result of a window as a sentence."""
    if found := alarms(tests, live):
        return "; ".join(found)
    if not tests:
        return f"too few answers to compare: {pluralize(len(window.times), 'image')}, at least {MIN_IMAGES} are needed"
    return "no drift"


def alarms(tests: Sequence[DriftTest], live: LiveAccuracy | None) -> list[str]:
    """Return the reasons for an alarm: properties that drift, and an accuracy in use below what was proven."""
    drifted = [test.name for test in tests if test.is_drift and not test.is_feature]
    if features := sum(test.is_drift for test in tests if test.is_feature):
        drifted.append(pluralize(features, "feature"))
    found = [f"drift of {', '.join(drifted)}"] if drifted else []
    if live is not None and live.is_below:
        found.append(f"accuracy {live.accuracy:.1%} in use, below the {live.proven:.1%} proven on test images")
    return found


def log_window(client: MlflowClient, name: str, content: MonitorContent, page: str) -> str:
    """Log a window and its page as a run in the experiment ``NAME-monitoring``; return the run's id."""
    from mlflow.entities import Metric, Param

    experiment = client.get_experiment_by_name(name + EXPERIMENT_SUFFIX)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name + EXPERIMENT_SUFFIX)
    run = client.create_run(experiment_id, run_name=f"{content.end} {content.headline}"[:250])
    run_id: str = run.info.run_id
    last_ms = int(content.window.times[-1] * 1000)
    totals = metrics_of(content.window, content.classes)
    totals |= {f"drift/{test.name}": test.effect for test in content.tests}
    totals |= {f"p_value/{test.name}": test.p_value for test in content.tests}
    if content.live is not None:
        live = content.live
        totals |= {"accuracy": live.accuracy, "accuracy_low": live.low, "accuracy_high": live.high}
    over_time = [
        Metric(_metric_name(f"over_time/{key}"), value, int(each.time_s * 1000), step)
        for step, each in enumerate(content.bins)
        for key, value in each.metrics.items()
    ]
    metrics = [Metric(_metric_name(key), value, last_ms, 0) for key, value in totals.items()] + over_time
    params = [Param("model", content.model), Param("package_id", content.package_id), Param("begin", content.begin)]
    for first in range(0, len(metrics), 1000):
        batch = metrics[first : first + 1000]
        retry_when_busy(client.log_batch, run_id, metrics=batch, params=params if first == 0 else [])
    client.log_text(run_id, page, PAGE)
    client.set_terminated(run_id)
    return run_id


def _metric_name(text: str) -> str:
    """Return a name that MLflow accepts: a class may have any."""
    return NOT_IN_METRIC_NAMES.sub("_", text)


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%d %H:%M}"
