"""A sheet of labelled pictures: the one layout that all pictures use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gcl_fast.images import pillow
from gcl_fast.visuals.png import check_picture
from gcl_fast.visuals.text import LINE, SMALL_TEXT_SIZE, font, pen_on

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]
Cells = Sequence[Sequence[np.ndarray | None]]

PAPER: Colour = (255, 255, 255)
INK: Colour = (31, 35, 40)
FAINT: Colour = (101, 109, 118)
GREEN: Colour = (22, 163, 74)
RED: Colour = (220, 38, 38)
BLUE: Colour = (37, 99, 235)

MARGIN = 18  # around the sheet
GAP = 8  # between cells
FRAME = 4  # around a picture, where cells have borders
READABLE_HEIGHT = 192  # smaller pictures are enlarged to at least this


def enlargement(height: int) -> int:
    """Whole factor that brings a picture of this height to a readable size (1 for 192 pixels and more)."""
    return max(1, -(-READABLE_HEIGHT // max(height, 1)))


@dataclass(frozen=True)
class _Labels:
    """The texts and frames of a sheet."""

    title: str | None
    rows: Sequence[str] | None
    columns: Sequence[str] | None
    captions: Sequence[Sequence[str]]
    borders: Sequence[Sequence[Colour | None]] | None

    def caption(self, row: int, column: int) -> str:
        return self.captions[row][column] if self.captions and column < len(self.captions[row]) else ""

    def border(self, row: int, column: int) -> Colour | None:
        return self.borders[row][column] if self.borders is not None else None


@dataclass(frozen=True)
class _Spacing:
    """What the caller decides: enlargement, width of a frame, and what is set apart."""

    scale: int
    frame: int
    gap_after_column: int | None
    rows_in_group: int | None

    def before_column(self, column: int) -> int:
        return 2 * GAP if self.gap_after_column is not None and column > self.gap_after_column else 0

    def before_row(self, row: int) -> int:
        return 2 * GAP * (row // self.rows_in_group) if self.rows_in_group else 0


@dataclass(frozen=True)
class _Layout:
    """Where everything lies, in pixels of the sheet; the first cell's corner is at (left, top), column titles at `header`."""

    spacing: _Spacing
    picture_width: int  # enlarged
    picture_height: int
    cell_width: int
    cell_height: int
    left: int
    header: int
    top: int

    def x(self, column: int) -> int:
        return self.left + column * (self.cell_width + GAP) + self.spacing.before_column(column)

    def y(self, row: int) -> int:
        return self.top + row * (self.cell_height + GAP) + self.spacing.before_row(row)

    def middle(self, column: int) -> float:
        return self.x(column) + self.cell_width / 2


def compose(
    cells: Cells,
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    borders: Sequence[Sequence[Colour | None]] | None = None,
    title: str | None = None,
    gap_after_column: int | None = None,
    rows_in_group: int | None = None,
) -> np.ndarray:
    """Lay pictures out in rows and columns, small ones enlarged, with text around them. Deterministic.

    Arguments:
        cells: [row][column] uint8 pictures [H, W, 3], all of one size, or None for an empty place; rows may be of different
            lengths.
        row_titles, column_titles: one text for each row or column.
        captions: [row][column], text below each cell ("\\n" starts a new line).
        borders: [row][column], colour of each cell's frame or None.
        title: one line above all.
        gap_after_column: sets that column apart from the next; rows_in_group: sets every so many rows apart.

    Returns: [H', W', 3] uint8.
    """
    height, width = _picture_size(cells)
    _check_titles("row_titles", row_titles, len(cells))
    _check_titles("column_titles", column_titles, max(len(row) for row in cells))
    scale = enlargement(height)
    labels = _Labels(title, row_titles, column_titles, captions or (), borders)
    spacing = _Spacing(scale, FRAME if borders is not None else 0, gap_after_column, rows_in_group)
    layout = _layout(labels, spacing, picture_height=height * scale, picture_width=width * scale)
    sheet = pillow().new("RGB", _sheet_size(cells, labels, layout), PAPER)
    pen = pen_on(sheet)
    _draw_titles(pen, labels, layout)
    _draw_cells(sheet, pen, cells, labels, layout)
    return np.array(sheet)  # [H', W', 3] uint8


def _picture_size(cells: Cells) -> tuple[int, int]:
    """Height and width of the pictures, which all share it."""
    pictures = [check_picture(picture, "cells") for row in cells for picture in row if picture is not None]
    if not pictures:
        raise ValueError("cells: expected at least one picture, got none")
    size = pictures[0].shape
    for picture in pictures:
        if picture.shape != size:
            raise ValueError(f"cells: expected pictures of one size, got {list(size[:2])} and {list(picture.shape[:2])}")
    return size[0], size[1]


def _check_titles(name: str, titles: Sequence[str] | None, count: int) -> None:
    if titles is not None and len(titles) != count:
        raise ValueError(f"{name}: expected {count} titles, got {len(titles)}")


def _layout(labels: _Labels, spacing: _Spacing, *, picture_height: int, picture_width: int) -> _Layout:
    """The room that each text needs decides the size of the cells and what lies beside them."""
    captions = [font(SMALL_TEXT_SIZE).extent(text) for row in labels.captions for text in row if text]
    columns = [font().extent(text) for text in labels.columns or ()]
    rows = [font().extent(text) for text in labels.rows or ()]
    header = MARGIN + (font().extent(labels.title).height + GAP if labels.title else 0)
    return _Layout(
        spacing=spacing,
        picture_width=picture_width,
        picture_height=picture_height,
        cell_width=max([picture_width + 2 * spacing.frame, *(text.width for text in captions + columns)]),
        cell_height=picture_height + 2 * spacing.frame + max((text.height for text in captions), default=0),
        left=MARGIN + (max(text.width for text in rows) + 2 * GAP if rows else 0),
        header=header,
        top=header + (max(text.height for text in columns) + GAP // 2 if columns else 0),
    )


def _sheet_size(cells: Cells, labels: _Labels, layout: _Layout) -> tuple[int, int]:
    """Width and height."""
    columns = max(len(row) for row in cells)
    apart = 2 * GAP if layout.spacing.gap_after_column is not None else 0
    width = layout.left + columns * (layout.cell_width + GAP) - GAP + apart + MARGIN
    if labels.title:
        width = max(width, font().extent(labels.title).width + 2 * MARGIN)
    return width, layout.y(len(cells) - 1) + layout.cell_height + MARGIN


def _draw_titles(pen: ImageDraw, labels: _Labels, layout: _Layout) -> None:
    if labels.title:
        font().line(pen, (MARGIN, MARGIN), labels.title, INK)
    for column, text in enumerate(labels.columns or ()):
        font().block(pen, (layout.middle(column), layout.header), text, INK, "center")
    for row, text in enumerate(labels.rows or ()):
        middle = layout.y(row) + layout.picture_height / 2 + layout.spacing.frame
        font().block(pen, (layout.left - 2 * GAP, middle), text, INK, "right")


def _draw_cells(sheet: Image, pen: ImageDraw, cells: Cells, labels: _Labels, layout: _Layout) -> None:
    """Frame, picture and caption of each cell that is not empty."""
    frame, scale = layout.spacing.frame, layout.spacing.scale
    for row, pictures in enumerate(cells):
        for column, picture in enumerate(pictures):
            if picture is None:
                continue
            x, y = layout.x(column) + (layout.cell_width - layout.picture_width) // 2, layout.y(row)
            below = y + layout.picture_height + 2 * frame
            colour = labels.border(row, column)
            if colour is not None:
                pen.rectangle((x - frame, y, x + layout.picture_width + frame - 1, below - 1), fill=colour)
            sheet.paste(pillow().fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1)), (x, y + frame))
            caption = labels.caption(row, column)
            if caption:
                font(SMALL_TEXT_SIZE).block(pen, (layout.middle(column), below + LINE), caption, FAINT, "center")
