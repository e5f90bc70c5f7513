"""The choice of the winner: proper scores on the same images, ties, ensembles, and the price of choosing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from data.dataset.dataset import Dataset
from data.dataset.folds import development_folds
from data.preprocessing import Preprocessing
from models.profiling.serving_cost import ServingCost
from models.training.predictions import HeldOutLogits, load_predictions, save_predictions
from models.trial_config import FitConfig
from tests.tuning.factories import dataset, trial_record
from tuning.common.trial_record import TrialRecord
from tuning.recipe.schema import Preference
from tuning.search.choice import TOLERANCE, Choice, ChoiceRules, choose, prefer_cheaper
from tuning.search.evidence import Evidence, Images, Member, Option, corrected_estimate

NUM_TRAIN, NUM_VAL = 40, 20  # images per class


@pytest.fixture
def pets(tmp_path: Path) -> Dataset:
    return dataset(tmp_path, {"train": NUM_TRAIN, "val": NUM_VAL, "test": 2})


def labels_of(pets: Dataset) -> np.ndarray:
    return np.array([sample.label for split in ("train", "val") for sample in pets.split(split)])


def probe(number: int, image_size: int = 32) -> TrialRecord:
    trial = trial_record(number, 0.8)
    network = trial.config.network.model_copy(update={"freeze_fraction": 1.0})
    changes = {
        "network": network,
        "fit": FitConfig(optimizer="lbfgs", validation="folds"),
        "preprocessing": Preprocessing(image_size),
    }
    return trial.model_copy(update={"origin": "probe", "config": trial.config.model_copy(update=changes)})


def logits(labels: np.ndarray, skill: float, seed: int) -> np.ndarray:
    """Return logits [n, 2] that tend to the right class by ``skill``, with an error of their own."""
    margin = (2 * labels - 1) * skill + np.random.default_rng(seed).normal(size=len(labels))
    return np.stack([-margin, margin], axis=1)


Logits = list[tuple[TrialRecord, np.ndarray]]


def evidence(pets: Dataset, oof: Logits, val: Logits) -> Evidence:
    """Return the evidence of probes by their out-of-fold logits, and of trained trials by their validation logits."""
    num_train = len(pets.split("train"))
    known = {trial.trial_uid: HeldOutLogits(array[num_train:], array) for trial, array in oof}
    return Evidence(pets, known | {trial.trial_uid: HeldOutLogits(array) for trial, array in val})


def run_choice(
    known: Evidence,
    trials: Sequence[TrialRecord],
    costs: Mapping[str, float] | None = None,
    prefer: Preference = "accuracy",
    max_members: int = 1,
) -> Choice:
    def cost_of(trial: TrialRecord) -> ServingCost | None:
        latency = (costs or {}).get(trial.trial_uid)
        return None if latency is None else ServingCost(latency_ms=latency, mb=1)

    rules = ChoiceRules.of_preference(prefer, max_members, lambda _: True)
    choice = choose(trials, {}, known, cost_of, rules)
    assert choice is not None
    return choice


def winner(choice: Choice) -> TrialRecord:
    (member,) = choice.members
    return member.trial


def test_the_lowest_log_loss_wins_among_equally_accurate_probes(pets: Dataset) -> None:
    labels = labels_of(pets)
    sure = np.where(np.arange(2) == labels[:, None], 3.0, 0.0)
    hesitant = sure / 6  # the same classes, with probabilities near one half
    hesitant[0], sure[0] = hesitant[0, ::-1], sure[0, ::-1]  # one mistake each
    first, second = probe(1), probe(2)
    choice = run_choice(evidence(pets, [(first, hesitant), (second, sure)], []), [first, second])
    assert winner(choice) == second


def test_all_classes_have_the_same_weight(tmp_path: Path) -> None:
    """A model that is perfect on the frequent class only does not win."""
    pets = dataset(tmp_path, {"train": 1, "val": 1, "test": 1})
    frequent = [pets.samples[0].model_copy(update={"content_hash": f"h{n}", "path": f"p{n}"}) for n in range(30)]
    pets = pets.model_copy(update={"samples": (*frequent, *pets.samples)})
    labels = labels_of(pets)
    frequent_only = np.tile([3.0, 0.0], (len(labels), 1))
    fair = np.where(np.arange(2) == labels[:, None], 0.8, 0.0)
    first, second = probe(1), probe(2)
    assert winner(run_choice(evidence(pets, [(first, frequent_only), (second, fair)], []), [first, second])) == second


@pytest.mark.parametrize(
    ("prefer", "excess", "wins_cheap"),
    [("accuracy", 0.1, False), ("balanced", 0.4, True), ("balanced", 0.6, False), ("small", 0.9, True)],
)
def test_a_much_cheaper_model_wins_a_tie(pets: Dataset, prefer: Preference, excess: float, wins_cheap: bool) -> None:
    """``excess`` is the mean difference of the losses in standard errors."""
    labels = labels_of(pets)
    expensive, cheap = probe(1, 64), probe(2, 32)
    differences = np.random.default_rng(0).normal(size=len(labels))
    images = Images(labels, np.arange(len(labels)))
    mean, error = images.estimate(differences)
    losses = np.ones(len(labels)), 1 + differences - mean + excess * error
    no_logits = np.zeros((len(labels), 2))
    options = [
        Option((Member(expensive),), no_logits, losses[0], cost_ms=9.0),
        Option((Member(cheap),), no_logits, losses[1], cost_ms=3.0),
    ]
    chosen = prefer_cheaper(options, images, TOLERANCE[prefer])
    assert chosen.trial == (cheap if wins_cheap else expensive)


def test_a_slightly_cheaper_or_much_worse_model_does_not_win(pets: Dataset) -> None:
    labels = labels_of(pets)
    best, worse = probe(1, 64), probe(2, 32)
    known = evidence(pets, [(best, logits(labels, 3.0, 0)), (worse, logits(labels, 0.5, 1))], [])
    assert winner(run_choice(known, [best, worse], {"uid1": 9.0, "uid2": 1.0}, "small")) == best
    equal = evidence(pets, [(best, logits(labels, 2.0, 0)), (worse, logits(labels, 2.0, 0))], [])
    assert winner(run_choice(equal, [best, worse], {"uid1": 9.0, "uid2": 6.1}, "small")) == best
    assert winner(run_choice(equal, [best, worse], {"uid1": 9.0, "uid2": 6.0}, "small")) == worse


def test_a_trained_trial_is_compared_with_the_probe_on_the_validation_images(pets: Dataset) -> None:
    labels = labels_of(pets)
    of_probe, trained = probe(1), trial_record(2, 0.9)
    val = labels[len(pets.split("train")) :]
    for skill, expected in ((4.0, trained), (0.3, of_probe)):
        known = evidence(pets, [(of_probe, logits(labels, 1.5, 0))], [(trained, logits(val, skill, 1))])
        choice = run_choice(known, [of_probe, trained])
        assert winner(choice) == expected
        assert choice.is_cross_validated == (expected == of_probe)
        assert len(choice.labels) == (len(labels) if expected == of_probe else len(val))


def test_a_trained_trial_that_is_hardly_better_on_few_validation_images_does_not_win(tmp_path: Path) -> None:
    pets = dataset(tmp_path, {"train": NUM_TRAIN, "val": 6, "test": 2})
    labels = labels_of(pets)
    of_probe, trained = probe(1), trial_record(2, 0.9)
    val = labels[len(pets.split("train")) :]
    probe_logits = logits(labels, 1.5, 0)
    noise = np.zeros((len(val), 2))
    noise[np.arange(len(val)), val] = np.where(np.arange(len(val)) % 2, 1.5, -0.3)
    known = evidence(pets, [(of_probe, probe_logits)], [(trained, probe_logits[-len(val) :] + noise)])
    options = [known.on_validation([Member(trial)], (), None).losses for trial in (of_probe, trained)]
    better = known.val.estimate(options[0] - options[1])
    assert 0 < better.mean < better.standard_error
    assert winner(run_choice(known, [of_probe, trained])) == of_probe


def test_overconfidence_that_a_temperature_removes_does_not_decide(pets: Dataset) -> None:
    labels = labels_of(pets)
    better, worse = 10 * logits(labels, 2.0, 0), logits(labels, 1.0, 1)
    first, second = probe(1), probe(2)
    assert winner(run_choice(evidence(pets, [(first, better), (second, worse)], []), [first, second])) == first


def test_independent_probes_form_an_ensemble_with_weights_in_thirds(pets: Dataset) -> None:
    labels = labels_of(pets)
    trials = [probe(number, size) for number, size in ((1, 32), (2, 64), (3, 96))]
    known = evidence(pets, [(trial, logits(labels, 1.0, number)) for number, trial in enumerate(trials)], [])
    choice = run_choice(known, trials, prefer="balanced", max_members=3)
    assert len(choice.members) > 1
    assert sum(member.weight for member in choice.members) == pytest.approx(1)
    assert all(round(3 * member.weight, 6) in (1, 2) for member in choice.members)
    assert choice.ensemble_gain is not None
    assert choice.ensemble_gain.mean > 0
    assert len(run_choice(known, trials, max_members=1).members) == 1


def test_an_ensemble_keeps_the_limits_and_needs_different_networks(pets: Dataset) -> None:
    labels = labels_of(pets)
    same = [probe(1), probe(2)]
    known = evidence(pets, [(trial, logits(labels, 1.0, number)) for number, trial in enumerate(same)], [])
    assert len(run_choice(known, same, max_members=3).members) == 1
    different = [probe(1, 32), probe(2, 64)]
    rules = ChoiceRules.of_preference("accuracy", 3, lambda members: len(members) == 1)
    choice = choose(different, {}, known, lambda _: None, rules)
    assert choice is not None
    assert len(choice.members) == 1


def test_reruns_count_for_the_mean_loss_of_a_trained_trial(pets: Dataset) -> None:
    val = np.array([sample.label for sample in pets.split("val")])
    lucky, steady, again = trial_record(1, 0.9), trial_record(2, 0.8), trial_record(3, 0.5)
    known = evidence(
        pets, [], [(lucky, logits(val, 2.5, 0)), (steady, logits(val, 2.0, 1)), (again, logits(val, 0.0, 2))]
    )
    rules = ChoiceRules.of_preference("accuracy", 1, lambda _: True)
    without = choose([lucky, steady], {}, known, lambda _: None, rules)
    with_reruns = choose([lucky, steady], {lucky.trial_uid: [again]}, known, lambda _: None, rules)
    assert without is not None
    assert with_reruns is not None
    assert (winner(without), winner(with_reruns)) == (lucky, steady)


def test_trials_that_were_rerun_on_folds_are_compared_on_these_folds(pets: Dataset) -> None:
    """On the validation images the search has chosen among them; on the folds of the re-runs it has not."""
    labels = labels_of(pets)
    folds = development_folds(pets)
    assert folds is not None
    val = labels[len(pets.split("train")) :]
    of_probe, lucky, steady = probe(1), trial_record(2, 0.9), trial_record(3, 0.8)
    reruns = {
        trial.trial_uid: [rerun_on(fold, 10 * trial.number + fold, trial) for fold in (0, 1)]
        for trial in (lucky, steady)
    }
    skills = {lucky.trial_uid: 0.3, steady.trial_uid: 2.5}
    on_folds = [
        (rerun, logits(labels[folds == rerun.config.fold], skills[uid], rerun.number))
        for uid, of_trial in reruns.items()
        for rerun in of_trial
    ]
    first_scores = [(lucky, logits(val, 4.0, 1)), (steady, logits(val, 2.0, 2))]
    rules = ChoiceRules.of_preference("accuracy", 1, lambda _: True)

    def choice_with(of_folds: Logits) -> Choice:
        known = evidence(pets, [(of_probe, logits(labels, 1.0, 0))], [*first_scores, *of_folds])
        choice = choose([of_probe, lucky, steady], reruns, known, lambda _: None, rules)
        assert choice is not None
        return choice

    choice = choice_with(on_folds)
    assert winner(choice) == steady
    assert len(choice.labels) == np.isin(folds, (0, 1)).sum()
    weak = [(rerun, logits(labels[folds == rerun.config.fold], 0.1, rerun.number)) for rerun, _ in on_folds]
    assert winner(choice_with(weak)) == of_probe


def test_a_trained_trial_joins_an_ensemble_only_if_its_reruns_cover_all_folds(pets: Dataset) -> None:
    labels = labels_of(pets)
    folds = development_folds(pets)
    assert folds is not None
    of_probe, trained = probe(1, 32), trial_record(2, 0.8)
    oof = logits(labels, 1.2, 1)
    reruns = [rerun_on(fold, 10 + fold, trained) for fold in range(folds.max() + 1)]
    on_folds = [(rerun, oof[folds == rerun.config.fold]) for rerun in reruns]
    known = evidence(
        pets,
        [(of_probe, logits(labels, 1.2, 0))],
        [(trained, logits(labels[len(pets.split("train")) :], 1.2, 2)), *on_folds],
    )
    rules = ChoiceRules.of_preference("accuracy", 3, lambda _: True)
    for covering, expected in ((reruns, {of_probe.trial_uid, trained.trial_uid}), (reruns[:-1], None)):
        choice = choose([of_probe, trained], {trained.trial_uid: covering}, known, lambda _: None, rules)
        assert choice is not None
        if expected is None:
            assert len(choice.members) == 1
        else:
            assert {member.trial.trial_uid for member in choice.members} == expected
            assert choice.is_cross_validated


def rerun_on(fold: int, number: int, trial: TrialRecord) -> TrialRecord:
    changes = {"config": trial.config.model_copy(update={"fold": fold}), "origin": "rerun", "rerun_of": trial.trial_uid}
    return trial_record(number).model_copy(update=changes)


def test_trials_without_evidence_cannot_be_chosen(pets: Dataset) -> None:
    rules = ChoiceRules.of_preference("accuracy", 1, lambda _: True)
    assert choose([trial_record(1)], {}, Evidence(pets, {}), lambda _: None, rules) is None


def test_the_estimate_of_the_best_of_many_equal_options_is_corrected() -> None:
    """Of 20 options with the same skill the best looks better than it is; the correction removes most of it."""
    apparent, corrected = [], []
    for seed in range(20):
        labels = np.arange(60) % 2
        images = Images(labels, np.arange(60))
        options = []
        for number in range(20):
            array = logits(labels, 0.7, 100 * seed + number)
            losses = np.log1p(np.exp(-2 * (2 * labels - 1) * array[:, 1]))
            options.append(Option((Member(trial_record(number)),), array, losses, None))
        chosen = min(options, key=lambda option: option.losses.mean())
        apparent.append(chosen.is_correct(labels).mean())
        corrected.append(corrected_estimate(options, chosen, images).score.mean)
    truth = 0.758  # the normal distribution at 0.7
    assert np.mean(apparent) > truth + 0.03
    assert abs(np.mean(corrected) - truth) < 0.5 * (np.mean(apparent) - truth)


def test_predictions_are_stored_without_pickle_and_missing_ones_are_none(tmp_path: Path) -> None:
    file = tmp_path / "uid.predictions.npz"
    assert load_predictions(file) is None
    save_predictions(file, HeldOutLogits(np.ones((2, 3)), np.full((5, 3), np.nan)))
    loaded = load_predictions(file)
    assert loaded is not None
    assert loaded.oof is not None
    assert (loaded.val.shape, loaded.oof.shape) == ((2, 3), (5, 3))
    assert np.isnan(loaded.oof).all()
