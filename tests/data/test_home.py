"""The state folder, and the migration of folders of earlier versions."""

from __future__ import annotations

from pathlib import Path

from data.home import migrated_folder


def test_a_folder_of_an_earlier_version_is_renamed(freezeline_home: Path) -> None:
    (freezeline_home / "looks").mkdir()
    (freezeline_home / "looks" / "abc.json").write_text("3")
    for _ in range(2):
        folder = migrated_folder("test_evaluations", former_name="looks")
        assert (folder / "abc.json").read_text() == "3"
    assert not (freezeline_home / "looks").exists()


def test_a_folder_without_an_earlier_version_is_created_empty(freezeline_home: Path) -> None:
    folder = migrated_folder("test_evaluations", former_name="looks")
    assert folder == freezeline_home / "test_evaluations"
    assert list(folder.iterdir()) == []
