from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

CAPABILITY_KIND_DATA_WATCHPOINTS: CapabilityKind
CAPABILITY_KIND_EXECUTION_BREAKPOINTS: CapabilityKind
CAPABILITY_KIND_FROZEN_TIME: CapabilityKind
CAPABILITY_KIND_INTERRUPTS_HELD: CapabilityKind
CAPABILITY_KIND_REGISTERS_WITH_EXIT: CapabilityKind
CAPABILITY_KIND_REGISTER_ACCESS_REPORTED: CapabilityKind
CAPABILITY_KIND_RESUME_FLAG: CapabilityKind
CAPABILITY_KIND_SINGLE_STEP: CapabilityKind
CAPABILITY_KIND_SOFTWARE_BREAKPOINTS: CapabilityKind
CAPABILITY_KIND_SOFTWARE_BREAKPOINTS_IN_REAL_MODE: CapabilityKind
CAPABILITY_KIND_UNSPECIFIED: CapabilityKind
CAPABILITY_KIND_USER_MODE: CapabilityKind
DESCRIPTOR: _descriptor.FileDescriptor
SUPPORT_CLOCK_SCALED: Support
SUPPORT_NOT_OFFERED: Support
SUPPORT_NO_EFFECT: Support
SUPPORT_REPLACED: Support
SUPPORT_UNSPECIFIED: Support
SUPPORT_WORKS: Support

class Capability(_message.Message):
    __slots__ = ["kind", "seen", "support"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    SUPPORT_FIELD_NUMBER: _ClassVar[int]
    kind: CapabilityKind
    seen: str
    support: Support
    def __init__(self, kind: _Optional[_Union[CapabilityKind, str]] = ..., support: _Optional[_Union[Support, str]] = ..., seen: _Optional[str] = ...) -> None: ...

class CapabilityKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Support(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
