"""A check of the bytes of a message against the fields of its type, before the message is decoded.

`protobuf` keeps fields that it does not know, cuts numbers that are too large, and takes the last of two values. The check refuses all of these, as the VMM does
with requests.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

# Which classes descriptors have differs between the releases of `protobuf`.
Descriptor: TypeAlias = Any
Field: TypeAlias = Any

# The wire types of https://protobuf.dev/programming-guides/encoding/#structure.
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5

_LIMITS = {
    FieldDescriptor.TYPE_BOOL: 1,
    FieldDescriptor.TYPE_UINT32: (1 << 32) - 1,
    FieldDescriptor.TYPE_UINT64: (1 << 64) - 1,
}

#: The maximum number of elements of lists in an answer.
MAX_ELEMENTS = 1 << 18


class Unusable(Exception):
    """The bytes are no message of the type, and the text says why."""


class _Field:
    """How a field is encoded, and how often it may occur."""

    def __init__(self, field: Field, slot: int) -> None:
        self.name = field.name
        # proto3 packs lists of numbers.
        self.repeated = slot == 0
        # One bit, which the fields of a `oneof` share.
        self.slot = slot
        self.inner = field.message_type
        self.limit = _LIMITS.get(field.type)
        self.signed = field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM)
        if self.limit is not None or self.signed:
            self.wire = _VARINT
        elif field.type == FieldDescriptor.TYPE_FIXED64:
            self.wire = _I64
        elif field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
            self.wire = _LEN
        else:
            raise TypeError(f"{field.full_name}: the check knows no fields of this type; extend trapgate.strict")
        self.values = None if field.enum_type is None else frozenset(field.enum_type.values_by_number)

    def check(self, value: int) -> None:
        """Refuses a number that the field cannot have."""
        if self.signed:
            value = value - (1 << 64) if value >> 63 else value
            if not -(1 << 31) <= value < 1 << 31:
                raise Unusable(f"the value of `{self.name}` is out of range")
            if self.values is not None and value not in self.values:
                raise Unusable(f"`{self.name}` has the value {value}, which this version does not know")
        elif self.limit is not None and value > self.limit:
            raise Unusable(f"the value of `{self.name}` is out of range")


_TABLES: dict[str, dict[int, _Field]] = {}


def _table(of: Descriptor) -> dict[int, _Field]:
    table = _TABLES.get(of.full_name)
    if table is None:
        table = {}
        slots: dict[str, int] = {}
        for field in of.fields:
            # An optional field is the only field of a `oneof`.
            choice = field.containing_oneof
            key = field.name if choice is None else f"oneof {choice.name}"
            slot = 0 if _is_list(field) else slots.setdefault(key, 1 << len(slots))
            table[field.number] = _Field(field, slot)
        _TABLES[of.full_name] = table
    return table


def _is_list(field: Field) -> bool:
    # The newest releases of `protobuf` have no `label`, and the older ones have no `is_repeated`.
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated)


def check(of: Descriptor, data: memoryview, *, unknown: bool = False, elements: int = MAX_ELEMENTS) -> None:
    """Refuses bytes that are no message of the type. With `unknown`, fields that the type does not have are skipped."""
    _Walk(data, unknown, elements).message(of, 0, len(data))


class _Walk:
    def __init__(self, data: memoryview, unknown: bool, elements: int) -> None:
        self.data = data
        self.unknown = unknown
        self.left = elements

    def message(self, of: Descriptor, at: int, end: int) -> None:
        """The messages are not recursive, so this recursion is as deep as they are."""
        table = _table(of)
        seen = 0
        while at < end:
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            field = table.get(number)
            if field is None:
                if not self.unknown:
                    raise Unusable(f"{of.name} has a field {number}, which this version does not know")
                at = self.skip(wire, at, end)
                continue
            if field.repeated:
                self.count(1)
            elif seen & field.slot:
                raise Unusable(f"{of.name} has `{field.name}` twice, or two fields of one choice")
            seen |= field.slot
            start, at = at, self.skip(wire, at, end)
            if wire == field.wire:
                if wire == _VARINT:
                    field.check(self.varint(start, end)[0])
                elif field.inner is not None:
                    self.message(field.inner, self.varint(start, end)[1], at)
            elif field.repeated and wire == _LEN:
                self.packed(field, self.varint(start, end)[1], at)
            else:
                raise Unusable(f"`{field.name}` of {of.name} is not encoded as its type")

    def packed(self, field: _Field, at: int, end: int) -> None:
        before = self.left
        while at < end:
            self.count(1)
            if field.wire == _I64:
                at = self.skip(_I64, at, end)
            else:
                value, at = self.varint(at, end)
                field.check(value)
        # The first element is counted with the list.
        self.left += before > self.left

    def count(self, elements: int) -> None:
        self.left -= elements
        if self.left < 0:
            raise Unusable("it has too many elements")

    def skip(self, wire: int, at: int, end: int) -> int:
        if wire == _VARINT:
            return self.varint(at, end)[1]
        if wire == _LEN:
            length, at = self.varint(at, end)
        elif wire in (_I64, _I32):
            length = 8 if wire == _I64 else 4
        else:
            raise Unusable("its bytes are no message")
        if length > end - at:
            raise Unusable("its bytes are no message")
        return at + length

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """A number, and where it ends."""
        value = 0
        for index in range(at, min(end, at + 10)):
            byte = self.data[index]
            value |= (byte & 0x7F) << 7 * (index - at)
            if byte < 0x80:
                if value >> 64:
                    break
                return value, index + 1
        raise Unusable("its bytes are no message")
