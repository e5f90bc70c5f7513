"""Contact sheets: the pictures of a finding side by side, so that a person can judge it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data.audit.report import Audit
from data.findings import Finding
from data.preprocessing import ImageError, read_image

SIDE = 128  # px of a picture on a sheet
CAPTION = 30  # px below it
COLUMNS = 8
ROWS = 10  # of a sheet, each with as many groups as fit
SHOWN = ("conflict", "near_conflict", "leak", "group_leak", "split_conflict", "duplicate", "near_duplicate", "tiny")


def contact_sheets(audit: Audit, folder: Path) -> list[Path]:
    """Write ``<kind>.png`` into ``folder`` for each finding that can be seen, groups framed together.

    A sheet holds as many groups as fit on ten rows of eight pictures; the audit's JSON names all files.
    Returns the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for finding in audit.findings:
        if finding.kind in SHOWN and finding.files:
            written.append(folder / f"{finding.kind}.png")
            _sheet(audit.root, finding).save(written[-1])
    return written


def _sheet(root: Path, finding: Finding) -> Image.Image:
    rows = _rows(finding.files)
    sheet = Image.new("RGB", (COLUMNS * SIDE, len(rows) * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, groups in enumerate(rows):
        column = 0
        for group in groups:
            for path in group:
                _put(sheet, root / path, path, (column * SIDE, row * (SIDE + CAPTION)))
                column += 1
            left, top = (column - len(group)) * SIDE, row * (SIDE + CAPTION)
            draw.rectangle((left, top, column * SIDE - 1, top + SIDE + CAPTION - 1), outline="black", width=2)
    return sheet


def _rows(groups: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Return groups, cut to a row's length, packed into rows in their order."""
    rows: list[list[Sequence[str]]] = [[]]
    for group in groups:
        if sum(map(len, rows[-1])) + min(len(group), COLUMNS) > COLUMNS:
            if len(rows) == ROWS:
                break
            rows.append([])
        rows[-1].append(group[:COLUMNS])
    return rows


def _put(sheet: Image.Image, file: Path, caption: str, at: tuple[int, int]) -> None:
    try:
        picture = read_image(file)
        scale = (SIDE - 8) / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        small = picture.resize(size, Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST)
        sheet.paste(small, (at[0] + (SIDE - size[0]) // 2, at[1] + (SIDE - size[1]) // 2))
    except ImageError as error:
        caption = f"{caption}: {error}"
    folder, _, name = caption.rpartition("/")
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate((folder, name)):
        draw.text((at[0] + 5, at[1] + SIDE + 13 * line), _fitting(text), fill="black", font=ImageFont.load_default(10))


def _fitting(text: str, most: int = 21) -> str:
    text = text.encode("ascii", "replace").decode()
    return text if len(text) <= most else f"{text[:9]}..{text[-10:]}"
