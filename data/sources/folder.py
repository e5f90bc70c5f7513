"""Data source: a folder of class folders, or of train/, val/ and test/ with class folders in each."""

from __future__ import annotations

from pathlib import Path

from data.errors import DataError
from data.sources.base import DataSource, ImageFile, SkippedFile, SplitName, to_utf8, valid_name
from data.sources.files import count_files, file_problem, visible_children, walk
from data.sources.layout import Layout, find_layout, split_lines
from data.sources.name_patterns import suggest_pattern
from data.sources.options import DataOptions
from data.text import pluralize

MAX_QUESTION_DEPTH = 5
OUTSIDE_CLASS_FOLDERS = "is outside the class folders"


def open_folder(
    root: Path, name: str | None = None, uri: str | None = None, options: DataOptions | None = None
) -> DataSource:
    """Open a folder of class folders, or of splits that contain class folders; its URI is by default its path.

    A folder with train/ and val/ or test/ (or common spellings of these), each with subfolders, provides splits, unless
    ``layout=classes``. Images may be in subfolders of a class folder. Hidden files and folders are ignored.

    Raises:
        DataError: the folder cannot be opened, is empty, has too few class folders, or a doubtful layout.
    """
    folders, files = visible_children(root)
    layout = Layout({}) if options and options.layout == "classes" else find_layout(root, folders)
    scan = _FolderScan(root)
    for folder, split in layout.splits.items():
        scan.add_classes(root / folder, split)
    if not layout.splits:
        scan.add_classes(root, None)
    for path in files:
        scan.skip(path, OUTSIDE_CLASS_FOLDERS)
    for folder in folders if layout.splits else []:
        scan.skip_folder(folder, layout)
    if len(scan.classes) < (options or DataOptions()).min_classes:
        _raise_too_few_classes(root, scan.classes, folders, files)
    return DataSource(
        name=name or valid_name(root.name),
        uri=uri or str(root),
        root=root,
        classes=tuple(sorted(scan.classes)),
        images=tuple(sorted(scan.images, key=lambda image: image.path)),
        skipped=tuple(scan.skipped),
        layout=split_lines(layout.splits),
    )


class _FolderScan:
    """Collects the images, classes and skipped files of a folder tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.classes: set[str] = set()
        self.images: list[ImageFile] = []
        self.skipped: list[SkippedFile] = []

    def add_classes(self, folder: Path, split: SplitName | None) -> None:
        labels, files = visible_children(folder)
        for name in files if split else []:
            self.skip(f"{folder.name}/{name}", OUTSIDE_CLASS_FOLDERS)
        for label in labels:
            self.classes.add(to_utf8(label))
            for path in walk(folder / label):
                self.add(path, label, split)

    def add(self, path: Path, label: str, split: SplitName | None) -> None:
        relative = path.relative_to(self.root).as_posix()
        problem = file_problem(path, relative)
        if problem:
            self.skip(relative, problem)
        else:
            self.images.append(ImageFile(path=relative, label=label, split=split))

    def skip(self, path: str, reason: str) -> None:
        self.skipped.append(SkippedFile(path=to_utf8(path), reason=reason))

    def skip_folder(self, folder: str, layout: Layout) -> None:
        """Skip a folder beside the splits, or a split without labels; its files are counted."""
        if folder in layout.splits:
            return
        num_files = count_files(self.root / folder)
        reason = f"has {pluralize(num_files, 'file')} in no split; name it train/, val/ or test/ to use it"
        if folder in layout.unlabeled:
            reason = (
                f"has {pluralize(num_files, 'file')} and no class folder; predict with the model of the search: "
                f"freezeline predict models:/NAME@champion {self.root / folder}"
            )
        self.skipped.append(SkippedFile(path=to_utf8(folder) + "/", reason=reason, num_files=num_files))


def _raise_too_few_classes(root: Path, classes: set[str], folders: list[str], files: list[str]) -> None:
    rule = "data must be a folder with one folder of images per class"
    if not folders and not files:
        raise DataError(f"{rule}, got an empty folder: {root}; add images, or pass another folder")
    if not classes:
        raise DataError(
            f"{rule}, got {pluralize(len(files), 'file')} and no folder in {root}; sort the images into class folders"
            f"{suggest_pattern(files)}"
        )
    (label,) = classes
    step = _inner_data_set(root) or "add a folder for each other class"
    names = visible_children(root / label)[1] if label in folders else []
    raise DataError(f"data must have at least 2 classes, got 1 ({label}) in {root}; {step}{suggest_pattern(names)}")


def _inner_data_set(root: Path) -> str:
    """Return a question that names the folder of several folders, below sole folders; empty if there is none."""
    folder = root
    for _ in range(MAX_QUESTION_DEPTH):
        folders, _files = visible_children(folder)
        if len(folders) != 1:
            return f"did you mean {folder}?" if len(folders) > 1 and folder != root else ""
        folder /= folders[0]
    return ""
