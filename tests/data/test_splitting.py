"""Split assignment: ratios, groups, persistence, leaks and coverage, mostly as properties of random items."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.splitting import SplitAssignment, SplitItem, assign_splits
from data.sources.base import SPLITS, SplitName

LABELS = ("cat", "dog", "emu")


def build_item(
    number: int, label: str = "cat", given_split: SplitName | None = None, group: str | None = None, path: str = ""
) -> SplitItem:
    content_hash = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
    path = path or f"{label}/{number}-{given_split}.png"
    return SplitItem(path=path, content_hash=content_hash, label=label, split=given_split, group=group)


def by_hash(assignment: SplitAssignment, items: Sequence[SplitItem]) -> dict[str, SplitName]:
    return {item.content_hash: assignment.splits[item.path] for item in items if item.path in assignment.splits}


def counts(assignment: SplitAssignment, items: Sequence[SplitItem]) -> Counter[tuple[str, str]]:
    return Counter((item.label, assignment.splits[item.path]) for item in items if item.path in assignment.splits)


@st.composite
def classes(draw: st.DrawFn, min_size: int = 3, max_size: int = 60) -> list[SplitItem]:
    """Draw items of two or three classes with distinct images."""
    sizes = draw(st.lists(st.integers(min_size, max_size), min_size=2, max_size=3))
    first = draw(st.integers(0, 10_000))
    return [
        build_item(first + 1000 * label + number, LABELS[label])
        for label, size in enumerate(sizes)
        for number in range(size)
    ]


@given(classes())
def test_each_class_is_split_70_15_15(items: list[SplitItem]) -> None:
    counted = counts(assign_splits(items), items)
    for label, size in Counter(item.label for item in items).items():
        holdout = max(1, round(0.15 * size))
        assert [counted[label, split] for split in SPLITS] == [size - 2 * holdout, holdout, holdout]


@given(classes(), st.randoms())
def test_splits_are_independent_of_file_order_and_names(items: list[SplitItem], random: st.DataObject) -> None:
    renamed = [item.model_copy(update={"path": f"{item.label}/new name {index}"}) for index, item in enumerate(items)]
    random.shuffle(renamed)  # type: ignore[attr-defined]
    assert by_hash(assign_splits(renamed), renamed) == by_hash(assign_splits(items), items)


@given(classes(), classes())
def test_existing_images_keep_their_split_when_images_are_added(old: list[SplitItem], new: list[SplitItem]) -> None:
    before = assign_splits(old)
    old_hashes = {item.content_hash for item in old}
    combined = old + [item for item in new if item.content_hash not in old_hashes]
    after = assign_splits(combined, persisted=before.new_assignments)
    assert by_hash(after, old) == by_hash(before, old)
    counted = counts(after, combined)
    for label, size in Counter(item.label for item in combined).items():
        assert all(counted[label, split] for split in SPLITS)
        assert counted[label, "train"] >= 0.6 * size - 2


@given(classes(), st.data())
def test_existing_images_keep_their_split_when_images_are_removed(items: list[SplitItem], data: st.DataObject) -> None:
    before = assign_splits(items)
    remaining = [item for item in items if data.draw(st.booleans())]
    hashes = {item.content_hash for item in remaining}
    assert by_hash(assign_splits(remaining, persisted=before.new_assignments), remaining) == {
        content_hash: split for content_hash, split in by_hash(before, items).items() if content_hash in hashes
    }


@given(
    classes(min_size=6), st.integers(1, 12), st.lists(st.tuples(st.integers(0, 179), st.integers(0, 179)), max_size=20)
)
def test_groups_and_near_duplicates_are_in_one_split(
    items: list[SplitItem], size: int, pairs: list[tuple[int, int]]
) -> None:
    items = [item.model_copy(update={"group": f"person {index // size}"}) for index, item in enumerate(items)]
    near_duplicates = [[items[a % len(items)].content_hash, items[b % len(items)].content_hash] for a, b in pairs]
    assignment = assign_splits(items, near_duplicates)
    assert assignment.excluded == {}
    splits = by_hash(assignment, items)
    assert all(splits[a] == splits[b] for a, b in near_duplicates)
    for group in {item.group for item in items}:
        assert len({splits[item.content_hash] for item in items if item.group == group}) == 1


@given(classes(min_size=20, max_size=80), st.integers(2, 4))
def test_every_class_is_in_every_split_if_groups_are_small(items: list[SplitItem], size: int) -> None:
    items = [item.model_copy(update={"group": f"{item.label} {index // size}"}) for index, item in enumerate(items)]
    counted = counts(assign_splits(items), items)
    for label, total in Counter(item.label for item in items).items():
        assert all(counted[label, split] for split in SPLITS)
        assert abs(counted[label, "train"] - 0.7 * total) <= 3 * size


@given(classes(), st.integers(1, 3))
def test_copies_of_an_image_are_in_one_split(items: list[SplitItem], copies: int) -> None:
    with_copies = items + [items[0].model_copy(update={"path": f"copy {number}"}) for number in range(copies)]
    assignment = assign_splits(with_copies)
    assert (
        len({assignment.splits[item.path] for item in with_copies if item.content_hash == items[0].content_hash}) == 1
    )


@settings(max_examples=50)
@given(classes(), st.sampled_from([("train",), ("train", "test"), ("train", "val"), ("train", "val", "test")]))
def test_provided_splits_are_kept(items: list[SplitItem], names: tuple[SplitName, ...]) -> None:
    items = [item.model_copy(update={"split": names[index % len(names)]}) for index, item in enumerate(items)]
    assignment = assign_splits(items)
    for item in items:
        split = assignment.splits[item.path]
        assert split == item.split or (item.split == "train" and split not in names)


def test_a_missing_split_is_15_percent_of_the_provided_training_images() -> None:
    items = [build_item(number, given_split="train") for number in range(40)] + [build_item(99, given_split="test")]
    assert counts(assign_splits(items), items) == {("cat", "train"): 34, ("cat", "val"): 6, ("cat", "test"): 1}


def test_images_without_a_split_next_to_provided_splits_are_training_images() -> None:
    items = [build_item(number) for number in range(20)] + [
        build_item(99, given_split="test"),
        build_item(98, given_split="val"),
    ]
    assert counts(assign_splits(items), items) == {("cat", "train"): 20, ("cat", "val"): 1, ("cat", "test"): 1}


def test_leaks_are_excluded_from_the_earlier_split() -> None:
    items = [
        build_item(1, given_split="train"),
        build_item(1, given_split="test"),
        build_item(2, given_split="val"),
        build_item(3, given_split="test"),
    ]
    items += [build_item(4, given_split="train"), build_item(5, given_split="val")]
    near_duplicates = [[items[2].content_hash, items[3].content_hash]]
    assignment = assign_splits(items, near_duplicates)
    assert {path: (excluded.reason, excluded.other) for path, excluded in assignment.excluded.items()} == {
        "cat/1-train.png": ("leak", "cat/1-test.png"),
        "cat/2-val.png": ("leak", "cat/3-test.png"),
    }
    assert assign_splits(items, near_duplicates, keep_leaks=True).excluded == {}


def test_a_new_image_that_matches_two_splits_is_excluded() -> None:
    old = [build_item(number) for number in range(20)]
    before = assign_splits(old)
    hash_of_split = {split: content_hash for content_hash, split in before.new_assignments.items()}
    new = build_item(50)
    after = assign_splits(
        [*old, new],
        near_duplicates=[[hash_of_split["train"], new.content_hash], [hash_of_split["test"], new.content_hash]],
        persisted=before.new_assignments,
    )
    assert by_hash(after, old) == before.new_assignments
    assert after.excluded[new.path].reason == "split_conflict"
    assert new.content_hash not in after.new_assignments


def test_a_new_image_joins_the_split_of_its_near_duplicate() -> None:
    old = [build_item(number) for number in range(20)]
    before = assign_splits(old)
    test_hash = next(content_hash for content_hash, split in before.new_assignments.items() if split == "test")
    new = build_item(50)
    after = assign_splits(
        [*old, new], near_duplicates=[[new.content_hash, test_hash]], persisted=before.new_assignments
    )
    assert after.splits[new.path] == "test"


def test_a_group_larger_than_a_holdout_split_is_in_train() -> None:
    items = [build_item(number, group="one" if number < 40 else None) for number in range(60)]
    assignment = assign_splits(items)
    assert {assignment.splits[item.path] for item in items[:40]} == {"train"}
    assert counts(assignment, items) == {("cat", "train"): 42, ("cat", "val"): 9, ("cat", "test"): 9}


def test_large_groups_are_spread_over_all_splits() -> None:
    items = [build_item(number, group=f"person {number % 3}") for number in range(30)]
    items += [build_item(100 + number, label="dog") for number in range(20)]
    assert [counts(assign_splits(items), items)["cat", split] for split in SPLITS] == [10, 10, 10]
