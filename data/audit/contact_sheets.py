"""Contact sheets: images of a finding on one page, for visual inspection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from data.audit.report import Audit
from data.dataset.value_range import stretched
from data.findings import Finding, FindingKind
from data.preprocessing import ImageError, decode_image

THUMBNAIL_SIDE = 128  # px
CAPTION_HEIGHT = 30  # px
COLUMNS = 8
MAX_ROWS = 10
MAX_CAPTION_LENGTH = 21  # characters per line
VISUAL_KINDS: tuple[FindingKind, ...] = (
    "conflict",
    "near_conflict",
    "leak",
    "group_leak",
    "split_conflict",
    "duplicate",
    "near_duplicate",
    "tiny",
)


def contact_sheets(audit: Audit, folder: Path) -> list[Path]:
    """Write ``<kind>.png`` into ``folder`` for each finding of a visual kind, with a frame around each group.

    A sheet has up to ``MAX_ROWS`` rows of ``COLUMNS`` images; the JSON of the audit lists all files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for finding in audit.findings:
        if finding.kind in VISUAL_KINDS and finding.files:
            files.append(folder / f"{finding.kind}.png")
            _sheet(audit.root, finding).save(files[-1])
    return files


def _sheet(root: Path, finding: Finding) -> Image.Image:
    return sheet_of_groups(root, finding.files)


def sheet_of_groups(
    root: Path, groups: Sequence[Sequence[str]], captions: Mapping[str, str] | None = None
) -> Image.Image:
    """Return groups of images, each with a frame; the caption of an image, ``line/line``, is by default its path."""
    rows, texts = _rows(groups), captions or {}
    cell_height = THUMBNAIL_SIDE + CAPTION_HEIGHT
    sheet = Image.new("RGB", (COLUMNS * THUMBNAIL_SIDE, len(rows) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, groups_of_row in enumerate(rows):
        column, top = 0, row * cell_height
        for group in groups_of_row:
            left = column * THUMBNAIL_SIDE
            for path in group:
                _paste(sheet, root / path, texts.get(path, path), (column * THUMBNAIL_SIDE, top))
                column += 1
            right, bottom = column * THUMBNAIL_SIDE - 1, top + cell_height - 1
            draw.rectangle((left, top, right, bottom), outline="black", width=2)
    return sheet


def _rows(groups: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Pack groups into rows in order; groups longer than a row are truncated."""
    rows: list[list[Sequence[str]]] = [[]]
    for group in groups:
        if sum(map(len, rows[-1])) + min(len(group), COLUMNS) > COLUMNS:
            if len(rows) == MAX_ROWS:
                break
            rows.append([])
        rows[-1].append(group[:COLUMNS])
    return rows


def _paste(sheet: Image.Image, file: Path, caption: str, position: tuple[int, int]) -> None:
    left, top = position
    try:
        image, side = stretched(decode_image(file)), THUMBNAIL_SIDE - 8
        method = Image.Resampling.BICUBIC if max(image.size) > side else Image.Resampling.NEAREST
        sheet.paste(ImageOps.pad(image, (side, side), method, "white"), (left + 4, top + 4))
    except ImageError as error:
        caption = f"{caption}: {error}"
    folder, _, name = caption.rpartition("/")
    draw = ImageDraw.Draw(sheet)
    for line, text in enumerate((folder, name)):
        origin = (left + 5, top + THUMBNAIL_SIDE + 13 * line)
        draw.text(origin, _shorten(text), fill="black", font=ImageFont.load_default(10))


def _shorten(text: str) -> str:
    text = text.encode("ascii", "replace").decode()
    return text if len(text) <= MAX_CAPTION_LENGTH else f"{text[:9]}..{text[-10:]}"
