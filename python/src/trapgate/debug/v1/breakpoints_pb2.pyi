from trapgate.debug.v1 import memory_pb2 as _memory_pb2
from trapgate.debug.v1 import nothing_pb2 as _nothing_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

BREAKPOINT_KIND_EXECUTE: BreakpointKind
BREAKPOINT_KIND_READ: BreakpointKind
BREAKPOINT_KIND_READ_WRITE: BreakpointKind
BREAKPOINT_KIND_SOFTWARE: BreakpointKind
BREAKPOINT_KIND_UNSPECIFIED: BreakpointKind
BREAKPOINT_KIND_WRITE: BreakpointKind
DESCRIPTOR: _descriptor.FileDescriptor

class Arming(_message.Message):
    __slots__ = ["debug_register", "memory", "pending"]
    class DebugRegister(_message.Message):
        __slots__ = ["number", "why"]
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        WHY_FIELD_NUMBER: _ClassVar[int]
        number: int
        why: Pending
        def __init__(self, number: _Optional[int] = ..., why: _Optional[_Union[Pending, _Mapping]] = ...) -> None: ...
    class Memory(_message.Message):
        __slots__ = ["gpa"]
        GPA_FIELD_NUMBER: _ClassVar[int]
        gpa: int
        def __init__(self, gpa: _Optional[int] = ...) -> None: ...
    class Pending(_message.Message):
        __slots__ = ["why"]
        WHY_FIELD_NUMBER: _ClassVar[int]
        why: trapgate.debug.v1.breakpoints_pb2.Pending
        def __init__(self, why: _Optional[_Union[trapgate.debug.v1.breakpoints_pb2.Pending, _Mapping]] = ...) -> None: ...
    DEBUG_REGISTER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    debug_register: Arming.DebugRegister
    memory: Arming.Memory
    pending: Arming.Pending
    def __init__(self, memory: _Optional[_Union[Arming.Memory, _Mapping]] = ..., debug_register: _Optional[_Union[Arming.DebugRegister, _Mapping]] = ..., pending: _Optional[_Union[Arming.Pending, _Mapping]] = ...) -> None: ...

class Breakpoint(_message.Message):
    __slots__ = ["address", "kind", "len"]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEN_FIELD_NUMBER: _ClassVar[int]
    address: int
    kind: BreakpointKind
    len: int
    def __init__(self, kind: _Optional[_Union[BreakpointKind, str]] = ..., address: _Optional[int] = ..., len: _Optional[int] = ...) -> None: ...

class BreakpointChange(_message.Message):
    __slots__ = ["insert", "remove"]
    INSERT_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    insert: Breakpoint
    remove: Breakpoint
    def __init__(self, insert: _Optional[_Union[Breakpoint, _Mapping]] = ..., remove: _Optional[_Union[Breakpoint, _Mapping]] = ...) -> None: ...

class BreakpointChanges(_message.Message):
    __slots__ = ["changes"]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[BreakpointChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[BreakpointChange, _Mapping]]] = ...) -> None: ...

class BreakpointList(_message.Message):
    __slots__ = ["breakpoints"]
    BREAKPOINTS_FIELD_NUMBER: _ClassVar[int]
    breakpoints: _containers.RepeatedCompositeFieldContainer[BreakpointStatus]
    def __init__(self, breakpoints: _Optional[_Iterable[_Union[BreakpointStatus, _Mapping]]] = ...) -> None: ...

class BreakpointStatus(_message.Message):
    __slots__ = ["arming", "breakpoint"]
    ARMING_FIELD_NUMBER: _ClassVar[int]
    BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
    arming: Arming
    breakpoint: Breakpoint
    def __init__(self, breakpoint: _Optional[_Union[Breakpoint, _Mapping]] = ..., arming: _Optional[_Union[Arming, _Mapping]] = ...) -> None: ...

class Pending(_message.Message):
    __slots__ = ["guest_has_registers", "no_ram", "not_executable", "not_trapped", "overwritten", "reset", "too_high", "unmapped", "user_only"]
    GUEST_HAS_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    NOT_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    NOT_TRAPPED_FIELD_NUMBER: _ClassVar[int]
    NO_RAM_FIELD_NUMBER: _ClassVar[int]
    OVERWRITTEN_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    TOO_HIGH_FIELD_NUMBER: _ClassVar[int]
    UNMAPPED_FIELD_NUMBER: _ClassVar[int]
    USER_ONLY_FIELD_NUMBER: _ClassVar[int]
    guest_has_registers: _nothing_pb2.Nothing
    no_ram: _nothing_pb2.Nothing
    not_executable: _nothing_pb2.Nothing
    not_trapped: _nothing_pb2.Nothing
    overwritten: _nothing_pb2.Nothing
    reset: _nothing_pb2.Nothing
    too_high: _nothing_pb2.Nothing
    unmapped: _memory_pb2.WalkFaultReason
    user_only: _nothing_pb2.Nothing
    def __init__(self, unmapped: _Optional[_Union[_memory_pb2.WalkFaultReason, _Mapping]] = ..., too_high: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., no_ram: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_trapped: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_executable: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., user_only: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., reset: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., overwritten: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., guest_has_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...

class BreakpointKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
