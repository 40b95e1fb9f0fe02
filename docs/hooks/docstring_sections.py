"""The site's reader of docstrings: Returns, Gradient, Errors and Source are boxes of free text, however they are laid out.

Without it a Returns section of several lines becomes a table with a row for each line.
"""

from __future__ import annotations

import re

import griffe

SECTION = re.compile(
    r"^(Returns|Gradient|Errors|Source):[ \t]*(\S.*)?\n?"
    r"((?:[ \t]+\S.*(?:\n|$)|[ \t]*\n(?=[ \t]+\S))*)",  # what is indented below it
    re.MULTILINE,
)


def boxed(text: str) -> str:
    """A docstring whose free sections begin on a line of their own, under a name that is no keyword of Google's style."""

    def section(match: re.Match[str]) -> str:
        first = f"    {match[2]}\n" if match[2] else ""
        rest = "".join(f"    {line.strip()}\n" for line in match[3].splitlines())
        return f"\nnote: {match[1]}\n{first}{rest}\n"

    return SECTION.sub(section, text)


class DocstringSections(griffe.Extension):
    """Boxes in every docstring that is read."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = boxed(obj.docstring.value)
