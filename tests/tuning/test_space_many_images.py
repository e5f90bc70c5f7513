"""The search space of many images: probes on ever more of them, epochs of a part, and the memory of a GPU."""

from __future__ import annotations

import pytest
from optuna.trial import FixedTrial

from tests.tuning.factories import PREPROCESSINGS, recipe
from tuning.common.option_types import ParamValue
from tuning.search.defaults import allows_fit, auto_images_per_epoch, max_train_images, max_val_images, probe_sizes
from tuning.search.space import SearchSpace


@pytest.mark.parametrize(
    ("num_images", "num_classes", "budget_s", "expected"),
    [
        (10_500, 6, 150, (2_000, 8_000)),  # a fit on all images would take 9 s of 150
        (10_500, 6, 300, (2_000, 8_000, 10_500)),
        (42_000, 10, 600, (2_000, 8_000, 16_000)),
        (42_000, 10, 3600, (2_000, 8_000, 16_000, 32_000)),
        (70_000, 1_000, 600, ()),  # not even the fewest images: gradient steps
        (70_000, 10, None, (2_000, 8_000, 16_000, 32_000)),
    ],
)
def test_probes_are_fitted_on_ever_more_images_as_far_as_the_budget_allows(
    num_images: int, num_classes: int, budget_s: float | None, expected: tuple[int, ...]
) -> None:
    sizes = probe_sizes(num_images)
    assert tuple(size for size in sizes if allows_fit(size, num_classes, budget_s)) == expected


@pytest.mark.parametrize(("num_images", "sizes"), [(1_500, (1_500,)), (8_003, (2_000, 8_003)), (9_999, (2_000, 9_999))])
def test_no_number_of_images_is_almost_the_next_one(num_images: int, sizes: tuple[int, ...]) -> None:
    assert probe_sizes(num_images) == sizes


def test_the_numbers_for_which_there_is_time_do_not_change_the_space() -> None:
    many_images = recipe(sweep="on", image_size="32,64", validation="split")
    distributions = []
    for max_images in (2_000, 8_000):
        space = SearchSpace(many_images, probe_images=(2_000, 8_000), max_probe_images=max_images)
        probe = space.linear_probes()[0]
        trial = FixedTrial(dict(probe))
        space.suggest(trial, is_probe=True)
        distributions.append(trial.distributions)
        assert (space.probe_on_more_images(probe) is None) == (max_images == 2_000)
    assert distributions[0] == distributions[1]  # a resumed search with another budget is the same study


def test_probes_start_on_the_fewest_images_and_continue_on_more() -> None:
    space = SearchSpace(recipe(sweep="on", image_size="32,64", validation="split"), probe_images=(2_000, 8_000))
    probes = space.linear_probes()
    configs = [space.trial_config(settings_of(space, probe), PREPROCESSINGS) for probe in probes]
    assert {config.images_per_epoch for config in configs} == {2_000}
    more = space.probe_on_more_images(probes[0])
    assert more == {**probes[0], "probe_images": 8_000}
    assert space.trial_config(settings_of(space, more), PREPROCESSINGS).images_per_epoch == 8_000
    assert space.probe_on_more_images(more) is None


def settings_of(space: SearchSpace, probe: dict[str, ParamValue]) -> dict[str, ParamValue]:
    return space.suggest(FixedTrial(dict(probe)), is_probe=True)


def test_an_epoch_has_as_many_images_as_the_default_trial_can_use_in_its_share_of_the_time() -> None:
    assert auto_images_per_epoch(42_000, 0.1, 8, 600, "cpu") == 4_500  # 0.4 x 600 s x 15 GFLOP/s / (8 x 0.1 GFLOP)
    assert auto_images_per_epoch(42_000, 0.2, 8, 60, "cpu") == 2_000
    assert auto_images_per_epoch(42_000, 0.2, 8, 600, "cuda") == 0
    assert auto_images_per_epoch(1_500, 0.2, 8, 60, "cpu") == 0


@pytest.mark.parametrize(("minutes", "count"), [(1, 2_000), (10, 2_000), (20, 4_000), (60, 5_000), (None, 5_000)])
def test_a_short_search_scores_its_trials_on_fewer_validation_images(minutes: float | None, count: int) -> None:
    assert max_val_images(minutes and 60 * minutes) == count


@pytest.mark.parametrize(("minutes", "cores", "count"), [(1, 2, 8_000), (10, 2, 40_000), (10, 16, 320_000)])
def test_a_short_search_trains_on_fewer_images(minutes: int, cores: int, count: int) -> None:
    assert max_train_images(60 * minutes, cores) == count


def test_trials_have_the_images_of_an_epoch_and_zero_means_all() -> None:
    for value, expected in (("3000", 3_000), ("0", None)):
        space = SearchSpace(recipe(images_per_epoch=value))
        assert space.trial_config(space.default_settings(), PREPROCESSINGS).images_per_epoch == expected


def test_the_largest_configurations_train_all_blocks_of_every_backbone_at_the_largest_size() -> None:
    space = SearchSpace(recipe(image_size="32,64", batch_size="8,64"))
    (config,) = space.largest_configs(PREPROCESSINGS)
    assert (config.network.freeze_fraction, config.preprocessing.image_size, config.batches.batch_size) == (0, 64, 64)
