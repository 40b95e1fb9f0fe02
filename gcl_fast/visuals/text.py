"""Text on a sheet: the two sizes of font, the room a text takes, and drawing it.

Pillow's built-in font, the same everywhere, has English letters without marks. Other texts are drawn in a font of the system that
has their letters; where there is none, without marks, and letters of other scripts as question marks.
"""

from __future__ import annotations

import contextlib
import functools
import unicodedata
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gcl_fast.errors import MissingPackageError
from gcl_fast.images import pillow

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

TEXT_SIZE = 15
SMALL_TEXT_SIZE = 13
LINE = 4  # pixels between two lines
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "Arial.ttf",
    "arial.ttf",
    # Chinese, Japanese and Korean: on Linux, macOS, Windows
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "DroidSansFallbackFull.ttf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
)
NO_LETTER = "\uffff"
ANCHORS = {"center": "ma", "right": "rm"}  # Pillow's: top middle, and right end at half the height


def pen_on(image: Image) -> ImageDraw:
    from PIL.ImageDraw import Draw

    return Draw(image)


class Extent(NamedTuple):
    """Pixels that a block of lines takes."""

    width: int
    height: int


class Font:
    """One size of font."""

    def __init__(self, size: int) -> None:
        image = pillow().new("RGB", (1, 1))
        from PIL import ImageFont

        try:
            font = ImageFont.load_default(size)
        except (ImportError, TypeError) as error:  # before 10.1 the built-in font has no sizes
            raise MissingPackageError("drawing pictures needs a newer Pillow: pip install 'pillow>=10.1'") from error
        assert isinstance(font, ImageFont.FreeTypeFont)  # a size is given
        self._font, self._size = font, size
        self._ruler = pen_on(image)

    def extent(self, text: str) -> Extent:
        font, text = self._drawn(text)
        box = self._ruler.multiline_textbbox((0, 0), text or " ", font=font, spacing=LINE)
        lines = text.count("\n") + 1
        return Extent(int(np.ceil(box[2])), lines * (sum(font.getmetrics()) + LINE))

    def line(self, pen: ImageDraw, corner: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
        """One line of text to the right of its upper left corner."""
        font, text = self._drawn(text)
        pen.text(corner, text, fill=colour, font=font)

    def block(
        self,
        pen: ImageDraw,
        place: tuple[float, float],
        text: str,
        colour: tuple[int, int, int],
        align: Literal["center", "right"],
    ) -> None:
        """Lines of text below `place`, centred, or left of it at half their height."""
        font, text = self._drawn(text)
        pen.multiline_text(place, text, fill=colour, font=font, anchor=ANCHORS[align], align=align, spacing=LINE)

    def _drawn(self, text: str) -> tuple[FreeTypeFont, str]:
        """The font that has a text's letters, and the text as it is drawn."""
        text = unicodedata.normalize("NFC", text)  # file names of macOS have marks as letters of their own
        if has_letters(self._font, text):
            return self._font, text
        for font in system_fonts(self._size):
            if has_letters(font, text):
                return font, text
        bare = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
        return self._font, "".join(letter if has_letters(self._font, letter) else "?" for letter in bare)


def has_letters(font: FreeTypeFont, text: str) -> bool:
    """Whether a font has every letter of a text; for those it lacks it draws the box of NO_LETTER."""
    box = bytes(font.getmask(NO_LETTER))
    return all(bytes(font.getmask(letter)) != box for letter in set(text) if not letter.isspace())


@functools.cache
def system_fonts(size: int) -> tuple[FreeTypeFont, ...]:
    """Those of SYSTEM_FONTS that are there."""
    from PIL import ImageFont

    found = []
    for name in SYSTEM_FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return tuple(found)


@functools.cache
def font(size: int = TEXT_SIZE) -> Font:
    """The font of titles; of captions with SMALL_TEXT_SIZE."""
    return Font(size)
