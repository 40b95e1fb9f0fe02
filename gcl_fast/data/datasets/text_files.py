"""Text lists in whatever encoding a stranger's editor wrote them."""

from __future__ import annotations

import codecs
import pathlib

from gcl_fast.errors import InputError

LARGEST = 2**63 - 1
"""Of a person, camera or frame: they travel as 64-bit integers."""
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(file: pathlib.Path) -> str:
    """A text file in UTF-8 or UTF-16, with or without a byte order mark, or else in Latin-1.

    Errors: InputError naming the file where it is no text.
    """
    content = file.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:4]:  # ASCII letters in UTF-16 without a mark
        encoding = "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise InputError(f"{file} is damaged: it begins as {encoding.upper()} and goes on as something else") from error
        text = content.decode("latin-1")
    if "\0" in text:
        raise InputError(f"{file} is not a text file: save it as UTF-8")
    return text
