"""TODO"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.splitting import SplitAssignment, SplitItem, assign_splits
from data.sources.base import SPLITS, SplitName

LABELS = ("cat", "dog", "emu")


def item(
    number: int, label: str = "cat", given: SplitName | None = None, group: str | None = None, path: str = ""
) -> SplitItem:
    digest = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
    return SplitItem(path or f"{label}/{number}-{given}.png", digest, label, given, group)


def by_digest(placement: SplitAssignment, items: Sequence[SplitItem]) -> dict[str, SplitName]:
    return {one.content_hash: placement.splits[one.path] for one in items if one.path in placement.splits}


def counts(placement: SplitAssignment, items: Sequence[SplitItem]) -> Counter[tuple[str, str]]:
    return Counter((one.label, placement.splits[one.path]) for one in items if one.path in placement.splits)


@st.composite
def classes(draw: st.DrawFn, least: int = 3, most: int = 60) -> list[SplitItem]:
    """Draw items of two or three classes, each picture different."""
    sizes = draw(st.lists(st.integers(least, most), min_size=2, max_size=3))
    first = draw(st.integers(0, 10_000))
    return [item(first + 1000 * at + number, LABELS[at]) for at, size in enumerate(sizes) for number in range(size)]


@given(classes())
def test_each_class_is_split_70_15_15(items: list[SplitItem]) -> None:
    placed = counts(assign_splits(items), items)
    for label, size in Counter(one.label for one in items).items():
        share = max(1, round(0.15 * size))
        assert [placed[label, split] for split in SPLITS] == [size - 2 * share, share, share]


@given(classes(), st.randoms())
def test_order_and_names_of_files_do_not_matter(items: list[SplitItem], random: st.DataObject) -> None:
    renamed = [dataclasses.replace(one, path=f"{one.label}/new name {at}") for at, one in enumerate(items)]
    random.shuffle(renamed)  # type: ignore[attr-defined]
    assert by_digest(assign_splits(renamed), renamed) == by_digest(assign_splits(items), items)


@given(classes(), classes())
def test_no_old_picture_moves_when_new_ones_come(old: list[SplitItem], new: list[SplitItem]) -> None:
    before = assign_splits(old)
    known = {one.content_hash for one in old}
    both = old + [one for one in new if one.content_hash not in known]
    after = assign_splits(both, persisted=before.new_assignments)
    assert by_digest(after, old) == by_digest(before, old)
    placed = counts(after, both)
    for label, size in Counter(one.label for one in both).items():
        assert all(placed[label, split] for split in SPLITS)
        assert placed[label, "train"] >= 0.6 * size - 2


@given(classes(), st.data())
def test_no_remaining_picture_moves_when_others_go(items: list[SplitItem], data: st.DataObject) -> None:
    before = assign_splits(items)
    rest = [one for one in items if data.draw(st.booleans())]
    assert by_digest(assign_splits(rest, persisted=before.new_assignments), rest) == {
        digest: split
        for digest, split in by_digest(before, items).items()
        if digest in {one.content_hash for one in rest}
    }


@given(classes(least=6), st.integers(1, 12), st.lists(st.tuples(st.integers(0, 179), st.integers(0, 179)), max_size=20))
def test_groups_and_twins_are_never_cut(items: list[SplitItem], size: int, pairs: list[tuple[int, int]]) -> None:
    items = [dataclasses.replace(one, group=f"person {at // size}") for at, one in enumerate(items)]
    twins = [[items[a % len(items)].content_hash, items[b % len(items)].content_hash] for a, b in pairs]
    placement = assign_splits(items, twins)
    assert placement.excluded == {}
    sides = by_digest(placement, items)
    assert all(sides[a] == sides[b] for a, b in twins)
    for group in {one.group for one in items}:
        assert len({sides[one.content_hash] for one in items if one.group == group}) == 1


@given(classes(least=20, most=80), st.integers(2, 4))
def test_every_class_is_in_every_split_where_groups_allow_it(items: list[SplitItem], size: int) -> None:
    items = [dataclasses.replace(one, group=f"{one.label} {at // size}") for at, one in enumerate(items)]
    placed = counts(assign_splits(items), items)
    for label, total in Counter(one.label for one in items).items():
        assert all(placed[label, split] for split in SPLITS)
        assert abs(placed[label, "train"] - 0.7 * total) <= 3 * size


@given(classes(), st.integers(1, 3))
def test_copies_are_on_one_side(items: list[SplitItem], copies: int) -> None:
    doubled = items + [dataclasses.replace(items[0], path=f"copy {number}") for number in range(copies)]
    placement = assign_splits(doubled)
    assert len({placement.splits[one.path] for one in doubled if one.content_hash == items[0].content_hash}) == 1


@settings(max_examples=50)
@given(classes(), st.sampled_from([("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")]))
def test_given_splits_are_kept(items: list[SplitItem], names: tuple[SplitName, ...]) -> None:
    items = [dataclasses.replace(one, given=names[at % len(names)]) for at, one in enumerate(items)]
    placement = assign_splits(items)
    for one in items:
        split = placement.splits[one.path]
        assert split == one.given_split or (one.given_split == "train" and split not in names)


def test_a_missing_split_is_fifteen_hundredths_of_the_given_training_pictures() -> None:
    items = [item(number, given="train") for number in range(40)] + [item(99, given="test")]
    assert counts(assign_splits(items), items) == {("cat", "train"): 34, ("cat", "val"): 6, ("cat", "test"): 1}


def test_a_picture_without_a_split_beside_given_ones_is_a_training_picture() -> None:
    items = [item(number) for number in range(20)] + [item(99, given="test"), item(98, given="val")]
    assert counts(assign_splits(items), items) == {("cat", "train"): 20, ("cat", "val"): 1, ("cat", "test"): 1}


def test_what_leaks_into_a_later_split_is_left_out_of_the_earlier() -> None:
    items = [item(1, given="train"), item(1, given="test"), item(2, given="val"), item(3, given="test")]
    items += [item(4, given="train"), item(5, given="val")]
    placement = assign_splits(items, near_duplicates=[[items[2].content_hash, items[3].content_hash]])
    assert {path: (shut.reason, shut.other) for path, shut in placement.excluded.items()} == {
        "cat/1-train.png": ("leak", "cat/1-test.png"),
        "cat/2-val.png": ("leak", "cat/3-test.png"),
    }
    assert (
        assign_splits(items, near_duplicates=[[items[2].content_hash, items[3].content_hash]], keep_leaks=True).excluded
        == {}
    )


def test_a_newcomer_that_ties_together_both_sides_is_kept_out() -> None:
    old = [item(number) for number in range(20)]
    before = assign_splits(old)
    sides = {split: digest for digest, split in before.new_assignments.items()}
    new = item(50)
    after = assign_splits(
        [*old, new],
        near_duplicates=[[sides["train"], new.content_hash], [sides["test"], new.content_hash]],
        persisted=before.new_assignments,
    )
    assert by_digest(after, old) == before.new_assignments
    assert after.excluded[new.path].reason == "split_conflict"
    assert new.content_hash not in after.new_assignments


def test_a_newcomer_joins_its_twin() -> None:
    old = [item(number) for number in range(20)]
    before = assign_splits(old)
    in_test = next(digest for digest, split in before.new_assignments.items() if split == "test")
    new = item(50)
    assert (
        assign_splits(
            [*old, new], near_duplicates=[[new.content_hash, in_test]], persisted=before.new_assignments
        ).splits[new.path]
        == "test"
    )


def test_a_group_larger_than_a_split_trains() -> None:
    items = [item(number, group="one" if number < 40 else None) for number in range(60)]
    placed = assign_splits(items)
    assert {placed.splits[one.path] for one in items[:40]} == {"train"}
    assert counts(placed, items) == {("cat", "train"): 42, ("cat", "val"): 9, ("cat", "test"): 9}


def test_large_groups_are_spread_so_that_every_class_is_in_every_split() -> None:
    items = [item(number, group=f"person {number % 3}") for number in range(30)]
    items += [item(100 + number, label="dog") for number in range(20)]
    assert [counts(assign_splits(items), items)["cat", split] for split in SPLITS] == [10, 10, 10]
