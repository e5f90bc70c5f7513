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
from data.sources.manifest import is_manifest, is_table, open_manifest, table_problem
from data.sources.options import DataOptions

SPLIT_TABLES = ("metadata.csv", "metadata.jsonl")
MAX_DEPTH = 8  # sole folders inside each other
MAX_UNUSED_TABLES, MAX_FOLDERS_WITH_TABLES = 3, 10  # that an error names
DOCUMENTS = frozenset((".md", ".txt", ".rst", ".pdf", ".html", ".htm", ".json", ".yaml", ".yml", ".doc", ".docx", ""))


def open_local_folder(root: Path, options: DataOptions) -> DataSource:
    """Open the data set in a folder that the user passed; one that is found deeper is opened as if it was passed.

    Raises:
        DataError: the folder contains no data set, or may contain several.
    """
    if options.label_from:
        return open_by_file_name(root, options.label_from)
    column = options.label_column
    folder = find_data_folder(root, column)
    inside = () if folder == root else (f"found in {folder.relative_to(root).as_posix()}/",)
    folders, files = visible_children(folder)
    tables = [folder / file for file in files if is_manifest(folder / file, column)] if len(folders) < 2 else []
    if split_tables := _split_tables(folder, folders, files, column):
        return _open_split_tables(folder, split_tables, valid_name(root.name), str(folder), options)
    if tables:
        if len(tables) > 1:
            listed = " and ".join(table.name for table in tables)
            raise DataError(f"data must have one table, got {listed} in {folder}; pass one: data={tables[0]}")
        return open_manifest(tables[0], valid_name(root.name), options=options)
    try:
        return _with_layout(open_folder(folder, valid_name(root.name), options=options), inside)
    except DataError as error:
        raise DataError(*error.problems, *_unused_tables(folder, folders, files, column)) from error


def open_tree(root: Path, name: str, uri: str, options: DataOptions) -> DataSource:
    """Open an extracted or downloaded folder, which may have a manifest at its top level."""
    folder = find_data_folder(root, options.label_column, skip_files=True)
    folders, files = visible_children(folder)
    has_classes = len(folders) > 1  # then only a table made for Freezeline counts
    column = options.label_column
    tables = [folder / file for file in files if is_manifest(folder / file, column, exact_names=has_classes)]
    try:
        if options.label_from:
            return open_by_file_name(root, options.label_from, name, uri)
        if split_tables := _split_tables(folder, folders, files, column):
            return _open_split_tables(folder, split_tables, name, uri, options)
        if len(tables) == 1:
            return open_manifest(tables[0], name, uri, confine_to=root, options=options)
        return open_folder(folder, name, uri, options=options)
    except DataError as error:  # show the path that the user entered instead of the cache folder
        raise DataError(*(problem.replace(str(root), uri) for problem in error.problems)) from error


def find_data_folder(root: Path, label_column: str = "", *, skip_files: bool = False) -> Path:
    """Return the folder that holds more than a sole folder and documents (``skip_files``: and other files).

    A folder of images alone is a class, so its parent is returned. A table stops the search.
    """
    folder = root
    for _ in range(MAX_DEPTH):
        folders, files = visible_children(folder)
        is_sole = len(folders) == 1 and not any(is_manifest(folder / file, label_column) for file in files)
        documents = [file for file in files if Path(file).suffix.lower() in DOCUMENTS]
        if not is_sole or (len(documents) < len(files) and not skip_files):
            return folder
        inner_folders, inner_files = visible_children(folder / folders[0])
        inner_tables = [file for file in inner_files if is_manifest(folder / folders[0] / file, label_column)]
        if not inner_folders and not inner_tables:
            return folder
        folder /= folders[0]
    return folder


def _split_tables(
    folder: Path, folders: Sequence[str], files: Sequence[str], label_column: str
) -> dict[Path, SplitName]:
    """Return the split of each table, if there is one of the training split.

    The only table in a split folder without folders (``train/_classes.csv``), ``train/metadata.csv`` or ``.jsonl`` (the
    form of the Hugging Face ImageFolder), or tables named after splits (``train_label.csv`` and ``test_label.csv``).
    """
    tables: dict[Path, SplitName] = {}
    for name, split in splits_of(folders).items():
        inner_folders, inner_files = visible_children(folder / name)
        names = [file for file in inner_files if is_manifest(folder / name / file, label_column)]
        chosen = [file for file in names if file in SPLIT_TABLES] or ([] if inner_folders else names)
        if len(chosen) == 1:
            tables[folder / name / chosen[0]] = split
    if not tables:
        named = splits_of(Path(file).stem for file in files if is_manifest(folder / file, label_column))
        if len(set(named.values())) == len(named) > 1:
            tables = {folder / file: named[Path(file).stem] for file in files if Path(file).stem in named}
    return tables if "train" in tables.values() else {}


def _unused_tables(folder: Path, folders: Sequence[str], files: Sequence[str], label_column: str) -> list[str]:
    """Return why the tables in a folder, or else those in its folders, are no manifests."""
    tables = [folder / file for file in files if is_table(folder / file)]
    if not tables:
        children = {name: visible_children(folder / name)[1] for name in folders[:MAX_FOLDERS_WITH_TABLES]}
        tables = [folder / name / file for name, inner in children.items() for file in inner]
        tables = [table for table in tables if is_table(table)]
    return [problem for table in tables[:MAX_UNUSED_TABLES] if (problem := table_problem(table, label_column))]


def _open_split_tables(
    folder: Path, tables: Mapping[Path, SplitName], name: str, uri: str, options: DataOptions
) -> DataSource:
    images: list[ImageFile] = []
    skipped: list[SkippedFile] = []
    classes: set[str] = set()
    for table, split in tables.items():
        source = open_manifest(table, confine_to=folder, options=options)
        prefix = "" if table.parent == folder else f"{table.parent.name}/"
        classes |= set(source.classes)
        for image in source.images:
            images.append(image.model_copy(update={"path": f"{prefix}{image.path}", "split": split}))
        skipped += [file.model_copy(update={"path": f"{prefix}{file.path}"}) for file in source.skipped]
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
