"""Checks the offsets of a `.tflite` file before anything follows them, as the verifier of FlatBuffers does in C++.

A file is a tree of tables. A table begins with the distance back to its *vtable*, which holds the size of the table and
the place of each field; a field that is a vector, a string or a table holds the distance to it. The runtime follows all
of that without asking, and so do the Python classes, for which a negative place is one counted from the end.
"""

import struct

# The verifier of FlatBuffers allows as many. A table that is referred to twice counts twice: a small file can describe
# a tree that fills the memory.
_MOST_TABLES = 1_000_000

# The fields of the schema's tables that refer to something, by their numbers: an integer is a vector of values of so
# many bytes, "text" a string, a list a vector of tables, another text a table, and a dictionary a union, whose type is
# the field before. Fields that are not listed are numbers.
_SCHEMA = {
    "Model": {
        **{1: ["OperatorCode"], 2: ["SubGraph"], 3: "text", 4: ["Buffer"], 5: 4, 6: ["Metadata"]},
        7: ["SignatureDef"],
    },
    "OperatorCode": {1: "text"},
    "SubGraph": {0: ["Tensor"], 1: 4, 2: 4, 3: ["Operator"], 4: "text"},
    "Tensor": {0: 4, 3: "text", 4: "QuantizationParameters", 6: "SparsityParameters", 7: 4, 9: ["VariantSubType"]},
    "VariantSubType": {0: 4},
    "QuantizationParameters": {0: 4, 1: 4, 2: 4, 3: 8, 5: {}},
    "SparsityParameters": {0: 4, 1: 4, 2: ["DimensionMetadata"]},
    "DimensionMetadata": {field: {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"} for field in (3, 5)},
    "Int32Vector": {0: 4},
    "Uint16Vector": {0: 2},
    "Uint8Vector": {0: 1},
    "Operator": {1: 4, 2: 4, 4: {17: "ReshapeOptions", 30: "SqueezeOptions"}, 5: 1, 7: 1, 8: 4, 12: {}},
    "ReshapeOptions": {0: 4},
    "SqueezeOptions": {0: 4},
    "OtherTable": {},
    "Buffer": {0: 1},
    "Metadata": {0: "text"},
    "SignatureDef": {0: ["TensorMap"], 1: ["TensorMap"], 2: "text"},
    "TensorMap": {0: "text"},
}
_UINT16, _INT32, _UINT32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")


def verify(content: bytes) -> None:
    """Raises a ValueError if an offset or a length of the `.tflite` file `content` leads outside of it."""
    verifier = _Verifier(content)
    verifier.table(verifier.referred(0), "Model")


class _Verifier:
    def __init__(self, content):
        self._content, self._length = content, len(content)
        # A table takes 8 bytes at least, with the reference to it.
        self._tables_left, self._text_left = min(_MOST_TABLES, self._length // 8), 4 * self._length

    def table(self, place, kind):
        """Checks the table at `place`, and all that it refers to."""
        self._tables_left -= 1
        if self._tables_left < 0:
            raise ValueError(f"it refers to more tables than {self._length:,} bytes can hold")
        vtable = place - self._number(_INT32, place, "a table")
        vtable_size, size = self._number(_UINT16, vtable, "a vtable"), self._number(_UINT16, vtable + 2, "a vtable")
        self._check(vtable, vtable_size, "a vtable")
        self._check(place, size, "a table")
        if vtable_size < 4 or vtable_size % 2 or size < 4:
            raise ValueError(f"the table at byte {place} has sizes that no table has, {vtable_size} and {size}")
        for field, target in _SCHEMA[kind].items():
            at = self._field(vtable, vtable_size, field)
            if not at:
                continue
            if at + 4 > size:
                raise ValueError(f"field {field} of the table at byte {place} ({kind}) lies outside of it")
            if isinstance(target, dict):
                at_type = self._field(vtable, vtable_size, field - 1)
                number = self._content[place + at_type] if 0 < at_type < size else 0
                target = target.get(number, "OtherTable")
            self._target(self.referred(place + at), target)

    def referred(self, place):
        """The place that the reference at `place` leads to."""
        return place + self._number(_UINT32, place, "a reference")

    def _field(self, vtable, vtable_size, field):
        """Where a field is in its table; 0 if the table does not have it."""
        entry = 4 + 2 * field
        return _UINT16.unpack_from(self._content, vtable + entry)[0] if entry + 2 <= vtable_size else 0

    def _target(self, place, target):
        if target == "text":
            return self._text(place)
        if isinstance(target, str):
            return self.table(place, target)
        count = self._number(_UINT32, place, "a vector")
        self._check(place + 4, count * (target if isinstance(target, int) else 4), "a vector")
        if isinstance(target, list):
            for number in range(count):
                self.table(self.referred(place + 4 + 4 * number), target[0])

    def _text(self, place):
        size = self._number(_UINT32, place, "a text")
        self._check(place + 4, size + 1, "a text")
        self._text_left -= size
        if self._text_left < 0:
            raise ValueError("its texts are larger than the file, one of them being referred to many times")
        if self._content[place + 4 + size]:
            raise ValueError(f"the text at byte {place} does not end with 0")
        try:
            str(memoryview(self._content)[place + 4 : place + 4 + size], "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"the text at byte {place} is not UTF-8: {error.reason}") from error

    def _number(self, kind, place, what):
        self._check(place, kind.size, what)
        return kind.unpack_from(self._content, place)[0]

    def _check(self, place, size, what):
        if place < 0 or place + size > self._length:
            raise ValueError(f"{what} of {size:,} bytes at byte {place:,} is not within the {self._length:,} bytes")
