"""FlatBuffers files read as tables of numbered fields, straight from the bytes, without a schema compiler.

Source: the FlatBuffers binary format: a table starts with a signed offset back to its field list (vtable), which holds for each
field its place in the table, 0 where it is absent; strings, vectors and inner tables are reached by unsigned 32-bit offsets.
"""

from __future__ import annotations

import struct

import numpy as np

from gcl_fast.errors import InputError


class Table:
    """One table. Fields are asked for by number, with what an absent one stands for.

    Errors: every reading that leaves the file raises InputError, so a damaged file says so.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        fields = at - self._number("<i", at)
        size = self._number("<H", fields)
        self._offsets = [self._number("<H", fields + 4 + 2 * i) for i in range(max(size - 4, 0) // 2)]

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The outermost table of a file."""
        return cls(data, cls._read(data, "<I", 0))

    def number(self, field: int, kind: str = "i", absent: int = 0) -> int:
        """A whole number; kind is a letter of the struct module: b, B, h, i, I."""
        place = self._place(field)
        return absent if place is None else self._number("<" + kind, place)

    def table(self, field: int) -> Table | None:
        place = self._place(field)
        return None if place is None else Table(self.data, self._follow(place))

    def tables(self, field: int) -> list[Table]:
        """A vector of tables, empty where absent."""
        start, count = self._vector(field)
        return [Table(self.data, self._follow(start + 4 * i)) for i in range(count)]

    def array(self, field: int, dtype: str = "<i4") -> np.ndarray:
        """A vector of numbers as NumPy array that shares the file's memory."""
        start, count = self._vector(field)
        size = np.dtype(dtype).itemsize
        if start + count * size > len(self.data):
            raise InputError(f"a vector of {count} numbers reaches beyond the end of the file")
        return np.frombuffer(self.data, dtype, count, start)

    def text(self, field: int) -> str:
        return self.array(field, "u1").tobytes().decode("utf-8", "replace")

    def _place(self, field: int) -> int | None:
        offset = self._offsets[field] if field < len(self._offsets) else 0
        return self.at + offset if offset else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Where a vector's first entry lies, and how many there are."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = self._follow(place)
        return start + 4, self._number("<I", start)

    def _follow(self, place: int) -> int:
        return place + self._number("<I", place)

    def _number(self, kind: str, place: int) -> int:
        return self._read(self.data, kind, place)

    @staticmethod
    def _read(data: bytes, kind: str, place: int) -> int:
        if not 0 <= place <= len(data) - struct.calcsize(kind):
            raise InputError(f"an offset points to byte {place} of a file of {len(data)} bytes")
        return int(struct.unpack_from(kind, data, place)[0])
