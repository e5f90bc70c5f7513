"""The finals: who is trained again, who wins, and whether the search gained more than noise."""

from __future__ import annotations

import pytest

from tests.tuning.factories import trial_record
from tuning.common.trial_record import TrialRecord
from tuning.search.reevaluation import improvement_over_default, next_rerun, select_winner, top_trials

PICTURES = 400
FEW = 10  # so few that no score below is apart from another


def final(of: TrialRecord, seed: int, score: float | None = 0.5, status: str = "complete") -> TrialRecord:
    made = trial_record(100 + 10 * of.number + seed, score)
    config = of.config.model_copy(update={"seed": of.config.seed + seed})
    return made.model_copy(update={"origin": "rerun", "of": of.trial_uid, "config": config, "status": status})


def everyone(_: TrialRecord) -> bool:
    return True


A, B, C, D = (trial_record(number, score) for number, score in enumerate((0.9, 0.8, 0.7, 0.6)))


def test_the_finalists_are_the_best_that_ended_and_did_not_fail() -> None:
    running = trial_record(4, 0.99, "running")
    failed = trial_record(5, 0.98, "failed")
    assert [one.trial for one in top_trials([D, C, running, B, failed, A], 2, FEW)] == [A, B]


def test_who_lies_behind_by_more_than_the_noise_is_no_finalist_and_does_not_win_by_being_quick() -> None:
    # Twice the noise of 0.9 and 0.84 on 400 pictures is 0.047; of 0.9 and 0.86, 0.046.
    near, far, farther = (trial_record(number, score) for number, score in ((1, 0.86), (2, 0.84), (3, 0.83)))
    results = [A, near, far, farther, *(final(one, 1, 0.84) for one in (far, farther))]
    assert [one.trial for one in top_trials(results, 4, PICTURES)] == [A, near]
    assert select_winner([A, near, far, farther], results, 4, PICTURES) is A
    running = trial_record(4, 0.99, "running")
    assert top_trials([*results, running], 4, PICTURES) == []


def test_seeds_go_round_the_finalists_so_that_a_short_time_is_spread_over_them() -> None:
    results, order = [A, B, C], []
    while (found := next_rerun(results, 2, 2, FEW, everyone)) is not None:
        trial, seed = found
        order.append((trial.number, seed - trial.config.seed))
        results.append(final(trial, seed - trial.config.seed, 0.1))
    assert order == [(0, 1), (1, 1), (0, 2), (1, 2)]


def test_a_trial_that_there_is_no_time_for_is_left_out() -> None:
    found = next_rerun([A, B], 2, 1, FEW, lambda trial: trial is B)
    assert found == (B, B.config.seed + 1)
    assert next_rerun([A, B], 2, 1, FEW, lambda _: False) is None


def test_a_final_that_runs_or_failed_is_not_begun_again() -> None:
    begun = [final(A, 1, None, "running"), final(B, 1, None, "failed")]
    assert next_rerun([A, B, *begun], 2, 1, FEW, everyone) is None


def test_the_highest_mean_wins_and_not_the_luckiest_score() -> None:
    results = [A, B, C, final(A, 1, 0.5), final(B, 1, 0.8), final(C, 1, 0.7)]
    assert select_winner([A, B, C], results, 3, FEW) is B


def test_only_those_that_were_trained_again_are_held_against_each_other() -> None:
    assert (
        select_winner([A, B, C], [A, B, C, final(B, 1, 0.85)], 3, FEW) is A
    )  # one mean alone says nothing about the others
    assert select_winner([A, B, C], [A, B, C], 3, FEW) is A
    assert select_winner([], [A], 3, FEW) is None


def test_who_may_not_win_does_not() -> None:
    results = [A, B, C, *(final(one, 1, 0.9) for one in (A, B, C))]
    assert select_winner([B, C], results, 3, FEW) is B


def test_a_final_that_failed_has_no_part_in_the_mean() -> None:
    (one,) = top_trials([A, final(A, 1, 0.1, "failed"), final(A, 2, 0.7)], 1, FEW)
    assert one.scores == (0.9, 0.7)
    assert one.mean == pytest.approx(0.8)
    assert one.std == pytest.approx(0.1 * 2**0.5)


def test_a_gain_of_many_seeds_and_pictures_is_real_and_one_within_the_spread_is_not() -> None:
    default, best = trial_record(0, 0.7), trial_record(1, 0.9)
    steady = [final(best, seed, 0.9) for seed in (1, 2)]
    gain = improvement_over_default(best, [default, best, *steady], 1, PICTURES)
    assert gain is not None
    assert gain.difference == pytest.approx(0.2)
    assert gain.standard_error == pytest.approx(((0.9 * 0.1 + 0.7 * 0.3) / PICTURES) ** 0.5)
    assert gain.is_significant
    shaky = [final(best, 1, 0.5), final(best, 2, 0.95)]
    unsure = improvement_over_default(best, [default, best, *shaky], 1, PICTURES)
    assert unsure is not None
    assert not unsure.is_significant


def test_there_is_no_gain_over_a_default_that_had_no_time_to_end() -> None:
    assert improvement_over_default(B, [trial_record(0, 0.3, "pruned"), B], 3, PICTURES) is None


def test_the_default_has_no_gain_over_itself() -> None:
    default = trial_record(0, 0.9)
    assert improvement_over_default(default, [default], 3, PICTURES) is None
    assert improvement_over_default(B, [trial_record(0, None, "failed"), B], 3, PICTURES) is None
