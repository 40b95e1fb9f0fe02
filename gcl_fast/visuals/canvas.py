"""A sheet of labelled pictures: the one layout that all pictures use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcl_fast.visuals.png import check_picture, pillow

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (31, 35, 40)
FAINT: Colour = (101, 109, 118)
GREEN: Colour = (22, 163, 74)
RED: Colour = (220, 38, 38)
BLUE: Colour = (37, 99, 235)

TEXT_SIZE = 15
SMALL_TEXT_SIZE = 13
MARGIN = 18  # around the sheet
GAP = 8  # between cells
LINE = 4  # between two lines of text
READABLE_HEIGHT = 192  # smaller pictures are enlarged to at least this


def enlargement(height: int) -> int:
    """Whole factor that brings a picture of this height to a readable size (1 for 192 pixels and more)."""
    return max(1, -(-READABLE_HEIGHT // max(height, 1)))


def compose(
    cells: Sequence[Sequence[np.ndarray | None]],
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    borders: Sequence[Sequence[Colour | None]] | None = None,
    border: int = 4,
    title: str | None = None,
    scale: int | None = None,
    gap_after_column: int | None = None,
    rows_in_group: int | None = None,
) -> np.ndarray:
    """Lay pictures out in rows and columns with text around them.

    cells[r][c] is a uint8 picture [H, W, 3], all of one size, or None for an empty place (rows may be of different
    lengths). `captions` stand below each cell ("\\n" starts a new line), `borders` give a frame colour. Pictures are
    enlarged `scale` times by repeating pixels (default: up to 192 pixels of height). `gap_after_column` sets that
    column apart from the next, `rows_in_group` every so many rows. Returns uint8 [H', W', 3].
    """
    image_module, draw_module, font_module = pillow()
    pictures = [p for row in cells for p in row if p is not None]
    if not pictures:
        raise ValueError("cells: expected at least one picture, got none")
    size = check_picture(pictures[0], "cells").shape
    for picture in pictures:
        if check_picture(picture, "cells").shape != size:
            raise ValueError(f"cells: expected pictures of one size, got {list(size[:2])} and {list(picture.shape[:2])}")
    rows, columns = len(cells), max(len(row) for row in cells)
    for name, titles, count in (("row_titles", row_titles, rows), ("column_titles", column_titles, columns)):
        if titles is not None and len(titles) != count:
            raise ValueError(f"{name}: expected {count} titles, got {len(titles)}")
    scale = enlargement(size[0]) if scale is None else scale
    if scale < 1:
        raise ValueError(f"scale: expected a whole number from 1, got {scale}")

    font, small = font_module.load_default(TEXT_SIZE), font_module.load_default(SMALL_TEXT_SIZE)
    ruler = draw_module.Draw(image_module.new("RGB", (1, 1)))

    def extent(text: str, face: Any) -> tuple[int, int]:  # width, height of a block of lines
        box = ruler.multiline_textbbox((0, 0), text or " ", font=face, spacing=LINE)
        lines = text.count("\n") + 1
        return int(np.ceil(box[2])), lines * (sum(face.getmetrics()) + LINE)

    frame = border if borders is not None else 0
    caption_texts = [list(row) for row in captions] if captions is not None else []
    caption_extents = [extent(t, small) for row in caption_texts for t in row if t]
    caption_height = max((h for _, h in caption_extents), default=0)
    picture_width, picture_height = size[1] * scale, size[0] * scale
    cell_width = max([picture_width + 2 * frame, *(w for w, _ in caption_extents)])
    if column_titles:
        cell_width = max([cell_width, *(extent(t, font)[0] for t in column_titles)])
    cell_height = picture_height + 2 * frame + caption_height

    left = MARGIN + (max((extent(t, font)[0] for t in row_titles), default=0) + 2 * GAP if row_titles else 0)
    top = MARGIN + (extent(title, font)[1] + GAP if title else 0)
    header = top
    top += max(extent(t, font)[1] for t in column_titles) + GAP // 2 if column_titles else 0
    apart = 2 * GAP if gap_after_column is not None else 0
    width = left + columns * (cell_width + GAP) - GAP + apart + MARGIN

    def y_of(row: int) -> int:
        return top + row * (cell_height + GAP) + (2 * GAP * (row // rows_in_group) if rows_in_group else 0)

    height = y_of(rows - 1) + cell_height + MARGIN
    if title:
        width = max(width, extent(title, font)[0] + 2 * MARGIN)

    def x_of(column: int) -> int:
        shift = apart if gap_after_column is not None and column > gap_after_column else 0
        return left + column * (cell_width + GAP) + shift

    sheet = image_module.new("RGB", (width, height), PAPER)
    pen = draw_module.Draw(sheet)
    if title:
        pen.text((MARGIN, MARGIN), title, fill=INK, font=font)
    for c, text in enumerate(column_titles or ()):
        middle = x_of(c) + cell_width / 2
        pen.multiline_text((middle, header), text, fill=INK, font=font, anchor="ma", align="center", spacing=LINE)
    for r, row in enumerate(cells):
        y = y_of(r)
        if row_titles:
            middle = y + picture_height / 2 + frame
            place = (left - 2 * GAP, middle)
            pen.multiline_text(place, row_titles[r], fill=INK, font=font, anchor="rm", align="right", spacing=LINE)
        for c, picture in enumerate(row):
            if picture is None:
                continue
            x = x_of(c) + (cell_width - picture_width) // 2
            colour = borders[r][c] if borders is not None else None
            if colour is not None:
                outer = (x - frame, y, x + picture_width + frame - 1, y + picture_height + 2 * frame - 1)
                pen.rectangle(outer, fill=colour)
            large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet.paste(image_module.fromarray(large), (x, y + frame))
            if caption_texts and c < len(caption_texts[r]) and caption_texts[r][c]:
                place, text = (x_of(c) + cell_width / 2, y + picture_height + 2 * frame + LINE), caption_texts[r][c]
                pen.multiline_text(place, text, fill=FAINT, font=small, anchor="ma", align="center", spacing=LINE)
    return np.array(sheet)  # [H', W', 3] uint8
