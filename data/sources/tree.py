"""Finding the data set inside a folder: below sole folders, beside a README, or as a table beside a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data.errors import DataError
from data.sources.base import DataSource, ImageFile, SkippedFile, SplitName, valid_name
from data.sources.file_names import open_by_file_name
from data.sources.files import visible_children
from data.sources.folder import open_folder
from data.sources.layout import splits_of
from data.sources.manifest import is_manifest, open_manifest
from data.sources.options import DataOptions

SPLIT_TABLES = ("metadata.csv", "metadata.jsonl")
MAX_DEPTH = 8  # sole folders inside each other
DOCUMENTS = frozenset((".md", ".txt", ".rst", ".pdf", ".html", ".htm", ".json", ".yaml", ".yml", ".doc", ".docx", ""))


def open_local_folder(root: Path, options: DataOptions) -> DataSource:
    """Open the data set in a folder that the user passed; one that is found deeper is opened as if it was passed.

    Raises:
        DataError: the folder contains no data set, or may contain several.
    """
    if options.label_from:
        return open_by_file_name(root, options.label_from)
    folder = find_data_folder(root)
    inside = () if folder == root else (f"found in {folder.relative_to(root).as_posix()}/",)
    folders, files = visible_children(folder)
    if split_tables := _split_tables(folder, folders):
        return _open_split_tables(folder, split_tables, valid_name(root.name), str(folder), options)
    tables = [folder / file for file in files if is_manifest(folder / file)] if len(folders) < 2 else []
    if tables:
        if len(tables) > 1:
            listed = " and ".join(table.name for table in tables)
            raise DataError(f"data must have one table, got {listed} in {folder}; pass one: data={tables[0]}")
        return open_manifest(tables[0], valid_name(root.name), options=options)
    return _with_layout(open_folder(folder, valid_name(root.name), options=options), inside)


def open_tree(root: Path, name: str, uri: str, options: DataOptions) -> DataSource:
    """Open an extracted or downloaded folder, which may have a manifest at its top level."""
    folder = find_data_folder(root, skip_files=True)
    folders, files = visible_children(folder)
    has_classes = len(folders) > 1  # then only a table made for Freezeline counts
    tables = [folder / file for file in files if is_manifest(folder / file, exact_names=has_classes)]
    try:
        if options.label_from:
            return open_by_file_name(root, options.label_from, name, uri)
        if split_tables := _split_tables(folder, folders):
            return _open_split_tables(folder, split_tables, name, uri, options)
        if len(tables) == 1:
            return open_manifest(tables[0], name, uri, confine_to=root, options=options)
        return open_folder(folder, name, uri, options=options)
    except DataError as error:  # show the path that the user entered instead of the cache folder
        raise DataError(*(problem.replace(str(root), uri) for problem in error.problems)) from error


def find_data_folder(root: Path, *, skip_files: bool = False) -> Path:
    """Return the folder that holds more than a sole folder and documents (``skip_files``: and other files).

    A folder of images alone is a class, so its parent is returned. A table stops the search.
    """
    folder = root
    for _ in range(MAX_DEPTH):
        folders, files = visible_children(folder)
        is_sole = len(folders) == 1 and not any(is_manifest(folder / file) for file in files)
        documents = [file for file in files if Path(file).suffix.lower() in DOCUMENTS]
        if not is_sole or (len(documents) < len(files) and not skip_files):
            return folder
        inner_folders, inner_files = visible_children(folder / folders[0])
        if not inner_folders and not any(is_manifest(folder / folders[0] / file) for file in inner_files):
            return folder
        folder /= folders[0]
    return folder


def _split_tables(folder: Path, folders: Sequence[str]) -> dict[Path, SplitName]:
    """Return the split of each ``train/metadata.csv`` or ``.jsonl``, the form of the Hugging Face ImageFolder."""
    tables = {
        folder / name / table: split
        for name, split in splits_of(folders).items()
        for table in SPLIT_TABLES
        if is_manifest(folder / name / table)
    }
    return tables if "train" in tables.values() else {}


def _open_split_tables(
    folder: Path, tables: Mapping[Path, SplitName], name: str, uri: str, options: DataOptions
) -> DataSource:
    images: list[ImageFile] = []
    skipped: list[SkippedFile] = []
    classes: set[str] = set()
    for table, split in tables.items():
        source = open_manifest(table, confine_to=folder, options=options)
        prefix = table.parent.name
        classes |= set(source.classes)
        for image in source.images:
            images.append(image.model_copy(update={"path": f"{prefix}/{image.path}", "split": split}))
        skipped += [file.model_copy(update={"path": f"{prefix}/{file.path}"}) for file in source.skipped]
    return DataSource(
        name=name,
        uri=uri,
        root=folder,
        classes=tuple(sorted(classes)),
        images=tuple(sorted(images, key=lambda image: image.path)),
        skipped=tuple(skipped),
        layout=tuple(f"table: {table.relative_to(folder)} ({split})" for table, split in tables.items()),
    )


def _with_layout(source: DataSource, lines: tuple[str, ...]) -> DataSource:
    return source.model_copy(update={"layout": (*lines, *source.layout)}) if lines else source
