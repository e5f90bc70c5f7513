"""Data source: a folder of images whose file names hold the label, by the pattern ``label_from``."""

from __future__ import annotations

import re
from pathlib import Path

from data.errors import DataError
from data.sources.base import DataSource, ImageFile, SkippedFile, to_utf8, valid_name
from data.sources.files import file_problem, visible_children, walk
from data.sources.layout import are_splits, split_lines, splits_of
from data.text import pluralize


def open_by_file_name(root: Path, pattern: str, name: str | None = None, uri: str | None = None) -> DataSource:
    """Open all files below a folder; the label is the first group of ``pattern`` in the path below the folder.

    Folders train/ and val/ or test/ (or common spellings of these) are splits.

    Raises:
        DataError: the pattern gives fewer than two classes.
    """
    splits = splits_of(visible_children(root)[0])
    if not are_splits(splits):
        splits = {}
    images: list[ImageFile] = []
    skipped: list[SkippedFile] = []
    for path in walk(root):
        relative = path.relative_to(root).as_posix()
        problem = file_problem(path, relative)
        match = re.search(pattern, to_utf8(relative))
        label = (match.group(1) or "").strip() if match else ""
        if problem or not label:
            skipped.append(SkippedFile(path=to_utf8(relative), reason=problem or f"does not match {pattern}"))
        else:
            images.append(ImageFile(path=relative, label=label, split=splits.get(path.relative_to(root).parts[0])))
    classes = tuple(sorted({image.label for image in images}))
    if len(classes) < 2:
        found = ", ".join(classes) or "none"
        example = f", such as {skipped[0].path}" if skipped else ""
        raise DataError(
            f"label_from must give at least 2 classes, got {found} with {pattern} in {root} "
            f"({pluralize(len(skipped), 'file')} without a label{example}); its first group (...) is the label"
        )
    return DataSource(
        name=name or valid_name(root.name),
        uri=uri or str(root),
        root=root,
        classes=classes,
        images=tuple(sorted(images, key=lambda image: image.path)),
        skipped=tuple(skipped),
        layout=(f"labels: from file names by {pattern}", *split_lines(splits)),
    )
