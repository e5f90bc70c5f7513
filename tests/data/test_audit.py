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


def found(data: Path) -> dict[str, tuple[int, list[set[str]]]]:
    return {
        finding.kind: (finding.count, [set(group) for group in finding.files])
        for finding in audit(load_dataset(str(data))).findings
    }


def test_a_good_folder_has_nothing_to_complain_about(make_folder: MakeFolder) -> None:
    made = audit(load_dataset(str(make_folder(size=LARGE))))
    assert made.findings == ()
    assert made.lines() == [
        "pictures: 24 pictures of 3 classes (18 train, 3 val, 3 test), median short side 40 px, 0 left out",
        "nothing to complain about",
    ]


def test_every_problem_is_named_by_file(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 12, "Dog": 6, "dog ": 6}, size=LARGE)
    (root / "cat" / "notes.png").write_text("no picture")
    (root / "readme").write_text("outside")
    shutil.copy(root / "cat" / "000.png", root / "Dog" / "cat.png")
    shutil.copy(root / "cat" / "001.png", root / "cat" / "copy.png")
    tiny_image(7, 7, (20, 20)).save(root / "Dog" / "small.png")
    tiny_image(8, 8, LARGE).convert("L").convert("RGB").save(root / "Dog" / "gray.png")
    Image.open(root / "Dog" / "002.png").resize((96, 80), Image.Resampling.BICUBIC).save(root / "Dog" / "twin.png")
    Image.open(root / "Dog" / "003.png").save(root / "cat" / "twin.jpg", quality=95)
    assert found(root) == {
        "unreadable": (1, [{"cat/notes.png"}]),
        "conflict": (2, [{"Dog/cat.png", "cat/000.png"}]),
        "near_conflict": (2, [{"Dog/003.png", "cat/twin.jpg"}]),
        "duplicate": (2, [{"cat/001.png", "cat/copy.png"}]),
        "near_duplicate": (2, [{"Dog/002.png", "Dog/twin.png"}]),
        "imbalance": (3, []),
        "similar_names": (2, []),
        "tiny": (1, [{"Dog/small.png"}]),
        "grayscale_stored_as_color": (1, [{"Dog/gray.png"}]),
        "unlabeled": (1, [{"readme"}]),
    }


def test_leaks_of_given_splits_are_found_exact_and_near(make_folder: MakeFolder) -> None:
    names = ("train", "val", "test")
    root = make_folder({f"{split}/{label}": 4 for split in names for label in ("cat", "dog")}, size=LARGE)
    shutil.copy(root / "test" / "cat" / "000.png", root / "train" / "cat" / "leak.png")
    Image.open(root / "test" / "dog" / "001.png").save(root / "val" / "dog" / "near.jpg", quality=95)
    count, groups = found(root)["leak"]
    assert count == 4
    assert {"train/cat/leak.png", "test/cat/000.png"} in groups
    assert {"val/dog/near.jpg", "test/dog/001.png"} in groups
    dataset = load_dataset(str(root))
    assert {item.path for item in dataset.skipped} == {"train/cat/leak.png", "val/dog/near.jpg"}
    kept = load_dataset(str(root), keep_leaks=True)
    assert kept.skipped == ()
    assert {f.kind: f.action for f in kept.findings}["leak"] == "kept where they are, as told"


def test_a_leak_of_exact_and_near_copies_is_one_group(make_folder: MakeFolder) -> None:
    root = make_folder({f"{split}/{label}": 4 for split in ("train", "test") for label in ("cat", "dog")}, size=LARGE)
    shutil.copy(root / "test" / "cat" / "000.png", root / "train" / "cat" / "exact.png")
    Image.open(root / "test" / "cat" / "000.png").save(root / "train" / "cat" / "near.jpg", quality=95)
    assert found(root)["leak"] == (3, [{"test/cat/000.png", "train/cat/exact.png", "train/cat/near.jpg"}])


def test_a_class_that_is_missing_from_a_given_split_is_named(make_folder: MakeFolder) -> None:
    names = ("train/cat", "train/dog", "val/cat", "val/dog", "test/cat")
    (finding,) = audit(load_dataset(str(make_folder(dict.fromkeys(names, 4), size=LARGE)))).findings[:1]
    assert (finding.kind, finding.detail) == ("class_missing", "dog in test")


def test_pictures_below_32_px_are_not_compared(make_folder: MakeFolder) -> None:
    root = make_folder(size=(20, 20))
    Image.open(root / "red" / "000.png").save(root / "red" / "near.jpg", quality=95)
    assert set(found(root)) == {"tiny"}


def test_an_audit_goes_through_json_and_back_with_all_files(image_folder: Path) -> None:
    for number in range(30):
        (image_folder / "red" / f"bad {number:02}.png").write_text("x")
    made = audit(load_dataset(str(image_folder)))
    assert Audit.from_json(made.to_json()) == made
    unreadable = json.loads(made.to_json())["findings"][0]
    assert (unreadable["kind"], len(unreadable["files"])) == ("unreadable", 30)
    assert "    red/bad 19.png is no picture that Pillow can read" in made.lines()
    assert "    red/bad 20.png is no picture that Pillow can read" not in made.lines()
    assert "    ... and 10 more" in made.lines()
    _, files, sizes = made.lines(max_files=0)
    assert files == "  30 files that can't be read: left out"
    assert sizes.endswith("(these are all pictures)")


def test_what_is_so_of_all_pictures_is_said_in_one_line(image_folder: Path) -> None:
    made = audit(load_dataset(str(image_folder)))
    assert len(made.findings[0].files) == 24
    (_, line) = made.lines()
    assert line.startswith("  24 pictures with a short side below 32 px: kept")
    assert line.endswith("(these are all pictures)")


def test_the_imbalance_is_that_of_the_training_pictures(make_folder: MakeFolder) -> None:
    made = audit(load_dataset(str(make_folder({"cat": 40, "dog": 10}, size=LARGE))))
    assert made.imbalance == 28 / 6
    assert [finding.detail for finding in made.findings] == ["cat has 40 pictures, dog has 10: 4.0 to 1"]


def test_a_name_with_a_line_break_is_one_line(image_folder: Path) -> None:
    (image_folder / "red" / "two\nlines\x1b[31m").write_text("x")
    assert (
        "    red/two\\nlines\\x1b[31m is no picture that Pillow can read"
        in audit(load_dataset(str(image_folder))).lines()
    )


def test_the_audit_of_a_loaded_data_set_is_that_of_its_folder(image_folder: Path) -> None:
    assert audit(load_dataset(str(image_folder))) == audit(load_dataset(str(image_folder)))


def test_contact_sheets_show_the_groups_side_by_side(image_folder: Path, tmp_path: Path) -> None:
    shutil.copy(image_folder / "red" / "000.png", image_folder / "blue" / "conflict.png")
    for number in range(100):
        shutil.copy(image_folder / "red" / "001.png", image_folder / "red" / f"copy {number}.png")
    sheets = contact_sheets(audit(load_dataset(str(image_folder))), tmp_path / "sheets")
    assert {path.name for path in sheets} == {"conflict.png", "duplicate.png", "tiny.png"}
    conflict = Image.open(tmp_path / "sheets" / "conflict.png").convert("RGB")
    assert conflict.crop((0, 0, 128, 128)).tobytes() != Image.new("RGB", (128, 128), "white").tobytes()
    assert Image.open(tmp_path / "sheets" / "tiny.png").size == (1024, 1580)


def test_a_sheet_says_what_can_no_longer_be_read(image_folder: Path, tmp_path: Path) -> None:
    made = audit(load_dataset(str(image_folder)))
    (image_folder / "red" / "000.png").unlink()
    assert len(contact_sheets(made, tmp_path / "sheets")) == 1


def test_every_kind_has_words() -> None:
    assert all(words.title and words.action for words in FINDING_TEXTS.values())
    assert AuditContext.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_a_data_set_that_nothing_can_be_learned_from_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 2, "dog": 5})
    with pytest.raises(DataError, match=r"cat \(2\)"):
        audit(load_dataset(str(root)))


def test_the_known_duplicates_of_fer2013_are_all_found(datasets: Path) -> None:
    known = json.loads((datasets / "fer2013-known-duplicates.json").read_text())
    groups = found(datasets / "fer2013-subset")
    assert len(known["cross_class"]) + len(known["cross_split"]) == 24
    assert all(set(group) in groups["conflict"][1] for group in known["cross_class"])
    assert all(any(set(group) <= leak for leak in groups["leak"][1]) for group in known["cross_split"])


def test_every_picture_of_sports5_counts(datasets: Path) -> None:
    dataset = load_dataset(str(datasets / "sports5-raw"))
    assert len(dataset.samples) == 368
    assert dataset.skipped == ()
    endings = Counter(Path(sample.path).suffix for sample in dataset.samples)
    assert (endings[".jfif"], endings[".webp"]) == (17, 10)
    sizes = {finding.kind: len(finding.files) for finding in dataset.findings}
    assert (sizes["duplicate"], sizes["near_duplicate"]) == (5, 36)


def test_each_reported_pair_of_the_photo_sets_is_one_that_a_person_confirmed(datasets: Path) -> None:
    trash = {finding.kind: finding for finding in audit(load_dataset(str(datasets / "trashnet-half"))).findings}
    assert len(trash["conflict"].files) == 3
    assert {tuple(sorted(group)) for group in trash["near_duplicate"].files} == {
        ("metal/metal120.jpg", "metal/metal50.jpg"),
        *[(f"paper/paper{a}.jpg", f"paper/paper{b}.jpg") for a, b in ((136, 148), (152, 392), (246, 349), (345, 451))],
        ("paper/paper474.jpg", "paper/paper89.jpg"),
    }
