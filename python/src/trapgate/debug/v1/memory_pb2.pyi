from trapgate.debug.v1 import nothing_pb2 as _nothing_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GuestAddress(_message.Message):
    __slots__ = ["gpa", "gva"]
    GPA_FIELD_NUMBER: _ClassVar[int]
    GVA_FIELD_NUMBER: _ClassVar[int]
    gpa: int
    gva: VpAddress
    def __init__(self, gva: _Optional[_Union[VpAddress, _Mapping]] = ..., gpa: _Optional[int] = ...) -> None: ...

class MappedPage(_message.Message):
    __slots__ = ["entry", "executable", "gpa", "gva", "size", "user", "writable"]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    GPA_FIELD_NUMBER: _ClassVar[int]
    GVA_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    entry: int
    executable: bool
    gpa: int
    gva: int
    size: int
    user: bool
    writable: bool
    def __init__(self, gva: _Optional[int] = ..., gpa: _Optional[int] = ..., size: _Optional[int] = ..., writable: bool = ..., user: bool = ..., executable: bool = ..., entry: _Optional[int] = ...) -> None: ...

class MappedPages(_message.Message):
    __slots__ = ["next", "pages"]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    next: int
    pages: _containers.RepeatedCompositeFieldContainer[MappedPage]
    def __init__(self, pages: _Optional[_Iterable[_Union[MappedPage, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...

class MemoryRegion(_message.Message):
    __slots__ = ["first", "last", "rights"]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    RIGHTS_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    rights: RegionRights
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., rights: _Optional[_Union[RegionRights, _Mapping]] = ...) -> None: ...

class RamRange(_message.Message):
    __slots__ = ["gpa", "len"]
    GPA_FIELD_NUMBER: _ClassVar[int]
    LEN_FIELD_NUMBER: _ClassVar[int]
    gpa: int
    len: int
    def __init__(self, gpa: _Optional[int] = ..., len: _Optional[int] = ...) -> None: ...

class RamRanges(_message.Message):
    __slots__ = ["ranges"]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[RamRange]
    def __init__(self, ranges: _Optional[_Iterable[_Union[RamRange, _Mapping]]] = ...) -> None: ...

class ReadMemory(_message.Message):
    __slots__ = ["address", "len"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEN_FIELD_NUMBER: _ClassVar[int]
    address: GuestAddress
    len: int
    def __init__(self, address: _Optional[_Union[GuestAddress, _Mapping]] = ..., len: _Optional[int] = ...) -> None: ...

class RegionRights(_message.Message):
    __slots__ = ["executable", "ram", "writable"]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    RAM_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    executable: bool
    ram: bool
    writable: bool
    def __init__(self, ram: bool = ..., writable: bool = ..., executable: bool = ...) -> None: ...

class TableEntry(_message.Message):
    __slots__ = ["gpa", "level", "value"]
    GPA_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    gpa: int
    level: int
    value: int
    def __init__(self, level: _Optional[int] = ..., gpa: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...

class Translation(_message.Message):
    __slots__ = ["entries", "executable", "gpa", "page_size", "user", "writable"]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    GPA_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[TableEntry]
    executable: bool
    gpa: int
    page_size: int
    user: bool
    writable: bool
    def __init__(self, gpa: _Optional[int] = ..., page_size: _Optional[int] = ..., writable: bool = ..., user: bool = ..., executable: bool = ..., entries: _Optional[_Iterable[_Union[TableEntry, _Mapping]]] = ...) -> None: ...

class VpAddress(_message.Message):
    __slots__ = ["gva", "vp"]
    GVA_FIELD_NUMBER: _ClassVar[int]
    VP_FIELD_NUMBER: _ClassVar[int]
    gva: int
    vp: int
    def __init__(self, vp: _Optional[int] = ..., gva: _Optional[int] = ...) -> None: ...

class WalkFaultReason(_message.Message):
    __slots__ = ["no_table", "non_canonical", "not_present", "reserved"]
    class NoTable(_message.Message):
        __slots__ = ["gpa", "level"]
        GPA_FIELD_NUMBER: _ClassVar[int]
        LEVEL_FIELD_NUMBER: _ClassVar[int]
        gpa: int
        level: int
        def __init__(self, level: _Optional[int] = ..., gpa: _Optional[int] = ...) -> None: ...
    class Reserved(_message.Message):
        __slots__ = ["bits", "entry"]
        BITS_FIELD_NUMBER: _ClassVar[int]
        ENTRY_FIELD_NUMBER: _ClassVar[int]
        bits: int
        entry: TableEntry
        def __init__(self, entry: _Optional[_Union[TableEntry, _Mapping]] = ..., bits: _Optional[int] = ...) -> None: ...
    NON_CANONICAL_FIELD_NUMBER: _ClassVar[int]
    NOT_PRESENT_FIELD_NUMBER: _ClassVar[int]
    NO_TABLE_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    no_table: WalkFaultReason.NoTable
    non_canonical: _nothing_pb2.Nothing
    not_present: TableEntry
    reserved: WalkFaultReason.Reserved
    def __init__(self, non_canonical: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_present: _Optional[_Union[TableEntry, _Mapping]] = ..., reserved: _Optional[_Union[WalkFaultReason.Reserved, _Mapping]] = ..., no_table: _Optional[_Union[WalkFaultReason.NoTable, _Mapping]] = ...) -> None: ...

class WriteMemory(_message.Message):
    __slots__ = ["address", "data"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    address: GuestAddress
    data: bytes
    def __init__(self, address: _Optional[_Union[GuestAddress, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...
