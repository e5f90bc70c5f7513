"""The report's charts of the searched settings."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import pytest

from tests.tuning.report_factory import (
    Page,
    built_report,
    report_content,
    report_result,
    report_trial,
    undrawn_report,
)
from tuning.common.trial_record import ParamValue, TrialRecord
from tuning.reporting.setting_charts import (
    MAX_SETTINGS,
    MAX_TRIALS,
    caption_parallel,
    draw_parallel,
    draw_slices,
    setting_axes,
    setting_trials,
)
from tuning.search.search_result import SearchResult


def trial(number: int, **settings: ParamValue) -> TrialRecord:
    record = report_trial(number, 0.5 + number / 250, lr=1e-4 * 10 ** (number / 5))
    return record.model_copy(update={"settings": {**record.settings, **settings}})


def result_of(trials: list[TrialRecord]) -> SearchResult:
    return report_result(trials=tuple(trials), winner=trials[-1])


@pytest.fixture
def result() -> SearchResult:
    """Return a search in which the best trials have a learning rate near 0.01, and the optimizer sgd."""
    return result_of([trial(number, optimizer="sgd" if number > 5 else "adamw") for number in range(11)])


@pytest.mark.parametrize("change", [{"origin": "probe"}, {"origin": "rerun"}, {"status": "failed"}, {"history": ()}])
def test_the_charts_need_eight_trials_with_a_score_that_are_no_probes(change: dict[str, object]) -> None:
    trials = [trial(number) for number in range(8)]
    assert [each.number for each in setting_trials(result_of(trials))] == [7, 6, 5, 4, 3, 2, 1, 0]
    changed = [trials[0].model_copy(update=change), *trials[1:]]
    assert setting_trials(result_of(changed)) == []


def test_of_many_trials_good_and_bad_ones_are_shown_in_proportion() -> None:
    shown = setting_trials(result_of([trial(number) for number in range(4 * MAX_TRIALS)]))
    assert len(shown) == MAX_TRIALS
    assert (shown[0].number, shown[-1].number) == (4 * MAX_TRIALS - 1, 0)
    assert {before.number - after.number for before, after in itertools.pairwise(shown)} == {4, 5}


def test_a_learning_rate_is_logarithmic_and_categories_are_evenly_spaced(result: SearchResult) -> None:
    lr, optimizer = setting_axes(result.trials)
    assert (lr.name, optimizer.name) == ("lr", "optimizer")
    assert lr.positions == pytest.approx([number / 10 for number in range(11)])
    assert [label for _, label in lr.ticks] == ["0.0001", "0.001", "0.01"]
    assert [place for place, _ in lr.ticks] == pytest.approx([0, 0.5, 1])
    assert optimizer.positions == [0] * 6 + [1] * 5
    assert optimizer.ticks == [(0, "adamw"), (1, "sgd")]


def test_few_different_numbers_are_categories_in_ascending_order() -> None:
    sizes = [128, 64, 224]
    axes = setting_axes([trial(number, image_size=sizes[number % 3], dropout=number / 10) for number in range(9)])
    by_name = {axis.name: axis for axis in axes}
    assert by_name["image_size"].ticks == [(0, "64"), (0.5, "128"), (1, "224")]
    assert by_name["dropout"].positions == pytest.approx([number / 8 for number in range(9)])
    assert [axis.name for axis in axes] == ["image_size", "lr", "dropout"]


def test_only_settings_of_all_trials_that_differ_have_an_axis() -> None:
    trials = [trial(number, **{f"option{index}": number for index in range(9)}) for number in range(8)]
    assert len(setting_axes(trials)) == MAX_SETTINGS
    trials[0] = trials[0].model_copy(update={"settings": {"lr": 1e-5}})
    assert [axis.name for axis in setting_axes(trials)] == ["lr"]


def test_the_caption_has_the_values_to_which_the_best_trials_are_limited(result: SearchResult) -> None:
    caption = caption_parallel(result)
    assert "Each line is one of 11 trials" in caption
    assert caption.endswith("The best 3 have lr 0.00398 to 0.01; optimizer sgd.")


def test_the_lines_lead_to_the_scores_and_that_of_the_winner_is_on_top(result: SearchResult) -> None:
    (axes,) = draw_parallel(result).axes
    ends = [line.get_xdata()[-1] for line in axes.lines]
    assert ends == pytest.approx([number / 10 for number in range(11)])
    widths, orders = ([getattr(line, f"get_{name}")() for line in axes.lines] for name in ("linewidth", "zorder"))
    assert widths.index(max(widths)) == orders.index(max(orders)) == 10
    opacity = [line.get_alpha() for line in axes.lines]
    assert opacity == sorted(opacity)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lr", "optimizer", "score"]
    plt.close("all")


def test_each_setting_has_a_slice_with_all_trials(result: SearchResult) -> None:
    charts = [axes for axes in draw_slices(result).axes if axes.get_visible()]
    assert [axes.get_title() for axes in charts] == ["lr", "optimizer"]
    for axes in charts:
        points = sum(len(group.get_offsets()) for group in axes.collections)
        assert points == 11 + 1  # the winner's ring
    plt.close("all")


def test_the_charts_are_in_a_collapsed_part_of_the_page(result: SearchResult) -> None:
    page = Page(built_report(report_content(result=result)))
    assert page.open == []
    assert "Parallel coordinates" in page.text
    assert {"parallel-figure", "slices-figure"} <= set(page.values("id"))
    assert "Parallel coordinates" not in Page(undrawn_report(report_content())).text


def test_trials_with_equal_scores_and_one_axis_can_be_drawn() -> None:
    trials = [trial(number).model_copy(update={"history": trial(0).history}) for number in range(8)]
    result = result_of(trials)
    assert len(setting_axes(trials)) == 1
    draw_parallel(result)
    draw_slices(result)
    plt.close("all")
