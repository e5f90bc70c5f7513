"""Building a report from the results of a search on real images."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from data.dataset.dataset import Sample
from data.load_dataset import load_dataset
from models.profiling.serving_cost import ServingCost
from tests.conftest import MakeFolder
from tests.tuning.factories import candidate, recipe, search_result, trial_record
from tests.tuning.report_factory import PROVENANCE, built_report, report_trial
from tuning.common.promotion_types import Promotion
from tuning.reporting.content import Decision, EvaluatedWinner, ReportContent, build_report_content
from tuning.reporting.downloads import predictions_csv
from tuning.reporting.provenance import Provenance
from tuning.search.reruns import RerunTrial
from tuning.search.selection import serving_spec_of
from tuning.search.time_budget import Elapsed


@pytest.fixture
def content(make_folder: MakeFolder) -> ReportContent:
    folder = make_folder({"blue": 20, "green": 20}, size=(40, 40))
    (folder / "blue" / "copy.png").write_bytes((folder / "blue" / "000.png").read_bytes())
    dataset = load_dataset(str(folder))
    trials = [trial_record(0, 0.5), trial_record(1, 0.75), trial_record(2, None, "failed")]
    result = search_result(
        trials,
        trials[1],
        reruns=(RerunTrial(trials[1], (0.75, 0.7)),),
        costs={serving_spec_of(trials[1], 2): ServingCost(latency_ms=3, mb=14)},
        limits={"mb": 20},
    )
    labels = np.array([sample.label for sample in dataset.split("test")])
    probabilities = np.eye(2)[1 - labels] * 0.8 + 0.1
    promotion = Promotion(alias="challenger", reason="not better", evidence={}, lost_images=tuple(range(3)))
    decision = Decision("Not decided yet: the server was away.", "", 1, promotion)
    winner = EvaluatedWinner(candidate(0.8, dataset.classes), 0.5, probabilities, labels)
    development = np.array([sample.label for sample in dataset.development])
    logits = 6.0 * np.eye(2)[development] + np.linspace(0, 0.5, len(development))[:, None] * [1, 0]
    logits[1] = 6.0 * np.eye(2)[1 - development[1]]
    logits[2] = np.nan  # never held out
    return build_report_content(dataset, result, winner, decision, ["only a few images"], PROVENANCE, logits)


def test_a_search_on_real_images_gives_a_complete_report(content: ReportContent) -> None:
    assert content.search == "run"
    assert content.scores.accuracy == 0
    assert len(content.mistakes) == sum(row.support for row in content.scores.per_class) > 1
    assert content.trials_table.csv.startswith("score,trial,")
    assert content.predictions_table.csv.count("\n") == 1 + len(content.mistakes)
    assert content.correct == content.won == ()
    assert [image.path for image in content.lost] == [image.path for image in content.mistakes[:3]]
    assert {len(example.augmented) for example in content.train_examples} == {4}
    assert all(not example.augmented for example in content.val_examples)
    assert any(len(pair.paths) == 2 for pair in content.pairs["duplicate"])
    page = built_report(content)
    assert "Not decided yet" in page
    assert "Only a few images." in page
    assert "max_mb=20" in page


def test_a_label_that_the_probes_contradict_is_shown(content: ReportContent) -> None:
    count, (image,) = content.label_issues
    assert (count, image.true_label != image.predicted_label) == (1, True)
    assert image.probability > 0.99
    assert image.true_label_probability < 0.01


def test_the_predictions_have_the_probability_of_each_class() -> None:
    names = ("a/1, 2.png", "b/\udcff.png")
    samples = [Sample(path=name, label=0, split="test", content_hash=name) for name in names]
    table = predictions_csv(samples, ("a", "b"), np.array([[0.25, 0.75], [2 / 3, 1 / 3]]), np.array([0, 0]))
    assert table.splitlines() == [
        "file,true_class,predicted_class,is_correct,a,b",
        '"a/1, 2.png",a,b,0,0.25,0.75',
        "b/\\udcff.png,a,a,1,0.666667,0.333333",
    ]


def test_the_provenance_has_the_requested_budget_and_the_times_of_the_trials() -> None:
    trials = [report_trial(number, 0.5) for number in range(3)]
    running = trials[2].model_copy(update={"status": "running", "ended_s": None})
    provenance = Provenance.collect(recipe(minutes=2.5, seed=7), [*trials[:2], running], Elapsed(210.0), "", "")
    assert (provenance.recipe, provenance.budget, provenance.seed) == ("auto", "2.5 min", 7)
    assert provenance.minutes == 3.5
    assert provenance.started.startswith("1970-01-12 ")
    assert provenance.started < provenance.ended
    assert f"Python {platform.python_version()}, torch " in provenance.versions
    assert " core" in provenance.machine
    assert Provenance.collect(recipe(trials=1, minutes=2), [], Elapsed(), "", "").budget == "2 min or 1 trial"


def test_the_provenance_of_a_resumed_search_has_the_time_of_all_sessions_and_names_the_budget_of_the_last() -> None:
    provenance = Provenance.collect(recipe(minutes=1), [], Elapsed(68.0, 112.0), "", "")
    assert provenance.minutes == 3.0
    assert provenance.budget == "1 min (minutes of the last session, which took 1:08)"


def test_a_search_of_an_older_version_has_no_times() -> None:
    provenance = Provenance.collect(recipe(), [trial_record()], Elapsed(), "", "")
    assert (provenance.started, provenance.ended) == ("", "")
