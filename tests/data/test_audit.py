"""The audit: findings, their texts, and contact sheets."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from data.audit.checks import AuditContext
from data.audit.contact_sheets import contact_sheets
from data.audit.report import Audit, audit
from data.errors import DataError
from data.findings import FINDING_TEXTS
from data.load_dataset import load_dataset
from tests.conftest import MakeFolder, tiny_image

LARGE = (48, 40)


def findings(data: Path) -> dict[str, tuple[int, list[set[str]]]]:
    return {
        finding.kind: (finding.count, [set(group) for group in finding.files])
        for finding in audit(load_dataset(str(data))).findings
    }


def test_a_clean_folder_has_no_findings(make_folder: MakeFolder) -> None:
    report = audit(load_dataset(str(make_folder(size=LARGE))))
    assert report.findings == ()
    assert report.lines() == [
        "images: 24 images in 3 classes (18 train, 3 val, 3 test), median short side 40 px, 0 files skipped",
        "  classes: blue 8, green 8, red 8",
        "no problems found",
    ]


def test_every_problem_is_listed_by_file(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 12, "Dog": 6, "dog ": 6}, size=LARGE)
    (root / "cat" / "notes.png").write_text("no image")
    (root / "readme").write_text("outside")
    shutil.copy(root / "cat" / "000.png", root / "Dog" / "cat.png")
    shutil.copy(root / "cat" / "001.png", root / "cat" / "copy.png")
    tiny_image(7, 7, (20, 20)).save(root / "Dog" / "small.png")
    tiny_image(8, 8, LARGE).convert("L").convert("RGB").save(root / "Dog" / "gray.png")
    Image.open(root / "Dog" / "002.png").resize((96, 80), Image.Resampling.BICUBIC).save(root / "Dog" / "similar.png")
    Image.open(root / "Dog" / "003.png").save(root / "cat" / "similar.jpg", quality=95)
    assert findings(root) == {
        "unreadable": (1, [{"cat/notes.png"}]),
        "conflict": (2, [{"Dog/cat.png", "cat/000.png"}]),
        "near_conflict": (2, [{"Dog/003.png", "cat/similar.jpg"}]),
        "duplicate": (2, [{"cat/001.png", "cat/copy.png"}]),
        "near_duplicate": (2, [{"Dog/002.png", "Dog/similar.png"}]),
        "imbalance": (3, []),
        "similar_names": (2, []),
        "tiny": (1, [{"Dog/small.png"}]),
        "grayscale_stored_as_color": (1, [{"Dog/gray.png"}]),
        "unlabeled": (1, [{"readme"}]),
    }


def test_exact_and_near_leaks_between_provided_splits_are_found(make_folder: MakeFolder) -> None:
    splits = ("train", "val", "test")
    root = make_folder({f"{split}/{label}": 4 for split in splits for label in ("cat", "dog")}, size=LARGE)
    shutil.copy(root / "test" / "cat" / "000.png", root / "train" / "cat" / "leak.png")
    Image.open(root / "test" / "dog" / "001.png").save(root / "val" / "dog" / "near.jpg", quality=95)
    count, groups = findings(root)["leak"]
    assert count == 4
    assert {"train/cat/leak.png", "test/cat/000.png"} in groups
    assert {"val/dog/near.jpg", "test/dog/001.png"} in groups
    dataset = load_dataset(str(root))
    assert {file.path for file in dataset.skipped} == {"train/cat/leak.png", "val/dog/near.jpg"}
    dataset = load_dataset(str(root), keep_leaks=True)
    assert dataset.skipped == ()
    actions = {finding.kind: finding.action for finding in dataset.findings}
    assert actions["leak"] == "kept as provided (on_leak=keep)"


def test_exact_and_near_duplicates_of_one_image_are_one_leak(make_folder: MakeFolder) -> None:
    root = make_folder({f"{split}/{label}": 4 for split in ("train", "test") for label in ("cat", "dog")}, size=LARGE)
    shutil.copy(root / "test" / "cat" / "000.png", root / "train" / "cat" / "exact.png")
    Image.open(root / "test" / "cat" / "000.png").save(root / "train" / "cat" / "near.jpg", quality=95)
    assert findings(root)["leak"] == (3, [{"test/cat/000.png", "train/cat/exact.png", "train/cat/near.jpg"}])
    assert not {"duplicate", "near_duplicate"} & findings(root).keys()  # they would be said to be in one split


def test_a_class_missing_from_a_provided_split_is_reported(make_folder: MakeFolder) -> None:
    folders = ("train/cat", "train/dog", "val/cat", "val/dog", "test/cat")
    (finding,) = audit(load_dataset(str(make_folder(dict.fromkeys(folders, 4), size=LARGE)))).findings[:1]
    assert (finding.kind, finding.detail) == ("class_missing", "dog in test")


def test_images_below_32_px_are_not_checked_for_near_duplicates(make_folder: MakeFolder) -> None:
    root = make_folder(size=(20, 20))
    Image.open(root / "red" / "000.png").save(root / "red" / "near.jpg", quality=95)
    assert set(findings(root)) == {"tiny"}


def test_the_json_of_an_audit_lists_all_files_and_the_text_only_some(image_folder: Path) -> None:
    for number in range(30):
        (image_folder / "red" / f"bad {number:02}.png").write_text("x")
    report = audit(load_dataset(str(image_folder)))
    assert Audit.from_json(report.to_json()) == report
    unreadable = json.loads(report.to_json())["findings"][0]
    assert (unreadable["kind"], len(unreadable["files"])) == ("unreadable", 30)
    assert "    red/bad 19.png is not an image that Pillow can read" in report.lines()
    assert "    red/bad 20.png is not an image that Pillow can read" not in report.lines()
    assert "    ... and 10 more" in report.lines()
    _, _, unreadable_line, tiny_line = report.lines(max_files=0)
    assert unreadable_line == "  30 unreadable files: skipped"
    assert tiny_line.endswith("(all images)")


def test_a_finding_about_all_images_is_one_line(image_folder: Path) -> None:
    report = audit(load_dataset(str(image_folder)))
    assert len(report.findings[0].files) == 24
    (_, _, line) = report.lines()
    assert line.startswith("  24 images with a short side below 32 px: kept")
    assert line.endswith("(all images)")


def test_images_are_counted_with_the_number_of_groups_in_which_they_are_listed(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 6, "dog": 6}, size=LARGE)
    for original, copy in (("000", "a"), ("000", "b"), ("001", "c")):
        shutil.copy(root / "cat" / f"{original}.png", root / "cat" / f"{copy}.png")
    _, _, title, *groups = audit(load_dataset(str(root))).lines()
    assert title == "  5 images with an exact duplicate in their class (2 groups): kept in the same split"
    assert groups == ["    cat/000.png = cat/a.png = cat/b.png", "    cat/001.png = cat/c.png"]
    assert audit(load_dataset(str(root))).lines(max_files=1)[3:] == [groups[0], "    ... and 1 more group"]


def test_the_imbalance_is_measured_on_the_training_split(make_folder: MakeFolder) -> None:
    report = audit(load_dataset(str(make_folder({"cat": 40, "dog": 10}, size=LARGE))))
    assert report.imbalance == 28 / 6
    assert [finding.detail for finding in report.findings] == ["cat has 40 images, dog has 10 (ratio 4.0)"]


def test_line_breaks_in_file_names_are_escaped(image_folder: Path) -> None:
    (image_folder / "red" / "two\nlines\x1b[31m").write_text("x")
    assert (
        "    red/two\\nlines\\x1b[31m is not an image that Pillow can read"
        in audit(load_dataset(str(image_folder))).lines()
    )


def test_loading_a_folder_twice_gives_the_same_audit(image_folder: Path) -> None:
    assert audit(load_dataset(str(image_folder))) == audit(load_dataset(str(image_folder)))


def test_contact_sheets_show_groups_of_images(image_folder: Path, tmp_path: Path) -> None:
    shutil.copy(image_folder / "red" / "000.png", image_folder / "blue" / "conflict.png")
    for number in range(100):
        shutil.copy(image_folder / "red" / "001.png", image_folder / "red" / f"copy {number}.png")
    sheets = contact_sheets(audit(load_dataset(str(image_folder))), tmp_path / "sheets")
    assert {path.name for path in sheets} == {"conflict.png", "duplicate.png", "tiny.png"}
    conflict = Image.open(tmp_path / "sheets" / "conflict.png").convert("RGB")
    assert conflict.crop((0, 0, 128, 128)).tobytes() != Image.new("RGB", (128, 128), "white").tobytes()
    assert Image.open(tmp_path / "sheets" / "tiny.png").size == (1024, 1580)


def test_a_sheet_says_what_can_no_longer_be_read(image_folder: Path, tmp_path: Path) -> None:
    report = audit(load_dataset(str(image_folder)))
    (image_folder / "red" / "000.png").unlink()
    assert len(contact_sheets(report, tmp_path / "sheets")) == 1


def test_every_kind_of_finding_has_a_title_and_an_action() -> None:
    assert all(text.title and text.action for text in FINDING_TEXTS.values())
    assert AuditContext.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_a_class_with_too_few_images_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 2, "dog": 5})
    with pytest.raises(DataError, match=r"cat \(2\)"):
        audit(load_dataset(str(root)))


def test_all_known_duplicates_of_fer2013_are_found(datasets: Path) -> None:
    known = json.loads((datasets / "fer2013-known-duplicates.json").read_text())
    kinds = findings(datasets / "fer2013-subset")
    assert len(known["cross_class"]) + len(known["cross_split"]) == 24
    assert all(set(group) in kinds["conflict"][1] for group in known["cross_class"])
    assert all(any(set(group) <= leak for leak in kinds["leak"][1]) for group in known["cross_split"])


def test_no_image_of_sports5_is_skipped(datasets: Path) -> None:
    dataset = load_dataset(str(datasets / "sports5-raw"))
    assert len(dataset.samples) == 368
    assert dataset.skipped == ()
    suffixes = Counter(Path(sample.path).suffix for sample in dataset.samples)
    assert (suffixes[".jfif"], suffixes[".webp"]) == (17, 10)
    num_groups = {finding.kind: len(finding.files) for finding in dataset.findings}
    assert (num_groups["duplicate"], num_groups["near_duplicate"]) == (5, 36)


def test_the_reported_duplicates_of_trashnet_are_the_manually_confirmed_ones(datasets: Path) -> None:
    by_kind = {finding.kind: finding for finding in audit(load_dataset(str(datasets / "trashnet-half"))).findings}
    assert len(by_kind["conflict"].files) == 3
    assert {tuple(sorted(group)) for group in by_kind["near_duplicate"].files} == {
        ("metal/metal120.jpg", "metal/metal50.jpg"),
        *[(f"paper/paper{a}.jpg", f"paper/paper{b}.jpg") for a, b in ((136, 148), (152, 392), (246, 349), (345, 451))],
        ("paper/paper474.jpg", "paper/paper89.jpg"),
    }
