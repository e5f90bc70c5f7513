"""Stratified parts: equal numbers of each class, every image in some part, and smaller parts in larger ones."""

from __future__ import annotations

import numpy as np
import pytest

from data.dataset.stratified_parts import MIN_PER_CLASS, StratifiedParts, segment_ranges, stratified_parts

LABELS = np.repeat([0, 1, 2], [1000, 400, 5])


def counts(rows: np.ndarray) -> list[int]:
    return np.bincount(LABELS[rows], minlength=3).tolist()


def test_every_part_has_the_same_number_of_images_of_each_class() -> None:
    parts = StratifiedParts(LABELS, 141)
    assert parts.count == 10
    assert {tuple(counts(parts.rows(part))) for part in range(10)} == {(101, 41, 5)}
    assert all((np.diff(parts.rows(part)) > 0).all() for part in range(10))


def test_the_parts_together_have_every_image_and_then_repeat() -> None:
    parts = StratifiedParts(LABELS, 141)
    together = np.unique(np.concatenate([parts.rows(part) for part in range(parts.count)]))
    assert together.tolist() == list(range(len(LABELS)))
    np.testing.assert_array_equal(parts.rows(13), parts.rows(3))
    assert [parts.repetition(part) for part in (0, 9, 10, 25)] == [0, 0, 1, 2]


def test_the_first_part_of_a_smaller_size_is_in_the_first_part_of_a_larger_one() -> None:
    first, second = (set(StratifiedParts(LABELS, size).rows(0).tolist()) for size in (50, 300))
    assert first < second


def test_segments_of_a_first_part_are_those_of_smaller_ones_and_further_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.dataset.stratified_parts.FIRST_SEGMENT", 50)
    assert [list(each)[::24] for each in segment_ranges(73)] == [[0, 24, 48], [50]]
    assert segment_ranges(400) == [range(50), range(50, 100), range(100, 200), range(200, 400)]
    assert segment_ranges(20) == [range(20)]
    smaller, larger = (StratifiedParts(LABELS, size) for size in (100, 400))
    segments = larger.segments()
    np.testing.assert_array_equal(np.sort(np.concatenate(segments)), larger.rows(0))
    np.testing.assert_array_equal(np.sort(np.concatenate(segments[:2])), smaller.rows(0))
    assert [len(rows) for rows in smaller.segments()] == [len(rows) for rows in segments[:2]]
    few_of_many_classes = StratifiedParts(np.repeat(np.arange(30), 20), 210)
    assert len(few_of_many_classes.segments()) == 1  # 8 images of each class


def test_a_rare_class_has_a_few_images_in_every_part() -> None:
    labels = np.repeat([0, 1], [10_000, 20])
    parts = StratifiedParts(labels, 100)
    drawn = [parts.rows(part)[parts.rows(part) >= 10_000] for part in range(parts.count)]
    assert {len(rows) for rows in drawn} == {MIN_PER_CLASS}
    assert len(np.unique(np.concatenate(drawn))) == 20


@pytest.mark.parametrize("size", [None, 1405, 5000])
def test_there_are_no_parts_if_one_has_all_images(size: int | None) -> None:
    assert stratified_parts(LABELS, size) is None
