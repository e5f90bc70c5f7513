"""The block MODEL of the terminal's result, and why the model was chosen."""

from __future__ import annotations

import numpy as np

from models.evaluation.estimate import Estimate
from tests.tuning.factories import candidate, ensemble, search_result, trial_record
from tuning.search.choice import Choice
from tuning.search.evidence import Member, SelectionEstimate
from tuning.ui.result_text import model_lines
from tuning.ui.summary import run_note


def test_the_model_has_its_network_its_costs_and_the_default() -> None:
    trials = [trial_record(0, 0.5, "out of time"), trial_record(1, 0.9)]
    assert list(model_lines(search_result(trials, trials[1]), candidate())) == [
        "MODEL     tf_efficientnet_lite0, 32 px, 9/18 frozen",
        "          10.0 MB, latency not measured",
        "          trial 1, validation 0.9000; default configuration 0.5000 (out of time)",
        "TRIALS    1 default, 1 sampler proposal",
    ]
    assert list(model_lines(search_result(trials, trials[0]), candidate()))[2].endswith("(the default configuration)")


def test_an_ensemble_is_shown_with_its_networks_and_its_own_latency() -> None:
    trials = [trial_record(0, 0.9)]
    lines = list(model_lines(search_result(trials, trials[0]), ensemble()))
    assert lines[:4] == [
        "MODEL     mean of 2 networks",
        "          tf_efficientnet_lite0 at 32 px, weight 0.75",
        "          tf_efficientnet_lite0 at 48 px, weight 0.25",
        "          10.0 MB, 12.5 ms/image on one core",
    ]
    assert "first network: trial 0, validation 0.9000" in lines[4]
    note = run_note(search_result(trials, trials[0]), ensemble(), "better")
    assert "- tf_efficientnet_lite0 at 48 px, weight 0.25\n" in note
    assert "Networks" not in run_note(search_result(trials, trials[0]), candidate(), "better")


def test_the_trial_of_the_model_stands_above_the_reason_of_the_choice() -> None:
    trials = [trial_record(0, 0.5), trial_record(1, 0.9)]
    estimate = SelectionEstimate(Estimate(0.8, 0.03), Estimate(0.5, 0.1))
    choice = Choice((Member(trials[1]),), estimate, "validation", np.zeros((20, 2)), np.arange(20) % 2, ())
    lines = list(model_lines(search_result(trials, trials[1], choice=choice), candidate()))
    assert lines[2:] == [
        "          trial 1, validation 0.9000; default configuration 0.5000",
        "CHOICE    chosen by log loss on 20 images of the validation split: expected",
        "          balanced accuracy 0.8000 ± 0.0300",
        "TRIALS    1 default, 1 sampler proposal",
    ]


def test_the_number_of_trials_of_each_origin_is_shown() -> None:
    origins = ("champion", "probe", "default", "fine_tune", "sampler", "sampler", "rerun")
    trials = [trial_record(number).model_copy(update={"origin": origin}) for number, origin in enumerate(origins)]
    lines = list(model_lines(search_result(trials, trials[0]), candidate()))
    assert lines[-2] == "TRIALS    1 champion configuration, 1 linear probe, 1 default, 1 fine-tune, 2"
