"""Text on a sheet: the two fonts, the room a text takes, and drawing it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gcl_fast.errors import MissingPackageError
from gcl_fast.images import pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

TEXT_SIZE = 15
SMALL_TEXT_SIZE = 13
LINE = 4  # pixels between two lines
ANCHORS = {"center": "ma", "right": "rm"}  # Pillow's: top middle, and right end at half the height


def pen_on(image: Image) -> ImageDraw:
    from PIL.ImageDraw import Draw

    return Draw(image)


class Extent(NamedTuple):
    """Pixels that a block of lines takes."""

    width: int
    height: int


class Font:
    """Pillow's built-in font at one size."""

    def __init__(self, size: int) -> None:
        image = pillow().new("RGB", (1, 1))
        from PIL import ImageFont

        try:
            font = ImageFont.load_default(size)
        except (ImportError, TypeError) as error:  # before 10.1 the built-in font has no sizes
            raise MissingPackageError("drawing pictures needs a newer Pillow: pip install 'pillow>=10.1'") from error
        assert isinstance(font, ImageFont.FreeTypeFont)  # a size is given
        self._font = font
        self._ruler = pen_on(image)

    def extent(self, text: str) -> Extent:
        box = self._ruler.multiline_textbbox((0, 0), text or " ", font=self._font, spacing=LINE)
        lines = text.count("\n") + 1
        return Extent(int(np.ceil(box[2])), lines * (sum(self._font.getmetrics()) + LINE))

    def line(self, pen: ImageDraw, corner: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
        """One line of text to the right of its upper left corner."""
        pen.text(corner, text, fill=colour, font=self._font)

    def block(
        self,
        pen: ImageDraw,
        place: tuple[float, float],
        text: str,
        colour: tuple[int, int, int],
        align: Literal["center", "right"],
    ) -> None:
        """Lines of text below `place`, centred, or left of it at half their height."""
        pen.multiline_text(place, text, fill=colour, font=self._font, anchor=ANCHORS[align], align=align, spacing=LINE)


@functools.cache
def font(size: int = TEXT_SIZE) -> Font:
    """The font of titles; of captions with SMALL_TEXT_SIZE."""
    return Font(size)
