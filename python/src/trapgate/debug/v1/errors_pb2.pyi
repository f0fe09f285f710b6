from trapgate.debug.v1 import capabilities_pb2 as _capabilities_pb2
from trapgate.debug.v1 import memory_pb2 as _memory_pb2
from trapgate.debug.v1 import nothing_pb2 as _nothing_pb2
from trapgate.debug.v1 import run_pb2 as _run_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BadMessage(_message.Message):
    __slots__ = ["bad_id", "duplicate", "malformed", "missing", "out_of_range", "too_long", "too_many", "too_many_pending", "unknown_field", "unknown_value", "wrong_answer"]
    class BadId(_message.Message):
        __slots__ = ["id"]
        ID_FIELD_NUMBER: _ClassVar[int]
        id: int
        def __init__(self, id: _Optional[int] = ...) -> None: ...
    class Duplicate(_message.Message):
        __slots__ = ["of"]
        OF_FIELD_NUMBER: _ClassVar[int]
        of: str
        def __init__(self, of: _Optional[str] = ...) -> None: ...
    class Missing(_message.Message):
        __slots__ = ["of"]
        OF_FIELD_NUMBER: _ClassVar[int]
        of: str
        def __init__(self, of: _Optional[str] = ...) -> None: ...
    class OutOfRange(_message.Message):
        __slots__ = ["of"]
        OF_FIELD_NUMBER: _ClassVar[int]
        of: str
        def __init__(self, of: _Optional[str] = ...) -> None: ...
    class TooLong(_message.Message):
        __slots__ = ["len", "limit"]
        LEN_FIELD_NUMBER: _ClassVar[int]
        LIMIT_FIELD_NUMBER: _ClassVar[int]
        len: int
        limit: int
        def __init__(self, len: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...
    class TooMany(_message.Message):
        __slots__ = ["limit"]
        LIMIT_FIELD_NUMBER: _ClassVar[int]
        limit: int
        def __init__(self, limit: _Optional[int] = ...) -> None: ...
    class UnknownField(_message.Message):
        __slots__ = ["field", "message"]
        FIELD_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        field: int
        message: str
        def __init__(self, message: _Optional[str] = ..., field: _Optional[int] = ...) -> None: ...
    class UnknownValue(_message.Message):
        __slots__ = ["of", "value"]
        OF_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        of: str
        value: int
        def __init__(self, of: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BAD_ID_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    MALFORMED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_RANGE_FIELD_NUMBER: _ClassVar[int]
    TOO_LONG_FIELD_NUMBER: _ClassVar[int]
    TOO_MANY_FIELD_NUMBER: _ClassVar[int]
    TOO_MANY_PENDING_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_VALUE_FIELD_NUMBER: _ClassVar[int]
    WRONG_ANSWER_FIELD_NUMBER: _ClassVar[int]
    bad_id: BadMessage.BadId
    duplicate: BadMessage.Duplicate
    malformed: _nothing_pb2.Nothing
    missing: BadMessage.Missing
    out_of_range: BadMessage.OutOfRange
    too_long: BadMessage.TooLong
    too_many: BadMessage.TooMany
    too_many_pending: _nothing_pb2.Nothing
    unknown_field: BadMessage.UnknownField
    unknown_value: BadMessage.UnknownValue
    wrong_answer: _nothing_pb2.Nothing
    def __init__(self, malformed: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., unknown_field: _Optional[_Union[BadMessage.UnknownField, _Mapping]] = ..., unknown_value: _Optional[_Union[BadMessage.UnknownValue, _Mapping]] = ..., missing: _Optional[_Union[BadMessage.Missing, _Mapping]] = ..., out_of_range: _Optional[_Union[BadMessage.OutOfRange, _Mapping]] = ..., too_many: _Optional[_Union[BadMessage.TooMany, _Mapping]] = ..., too_long: _Optional[_Union[BadMessage.TooLong, _Mapping]] = ..., too_many_pending: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., wrong_answer: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., duplicate: _Optional[_Union[BadMessage.Duplicate, _Mapping]] = ..., bad_id: _Optional[_Union[BadMessage.BadId, _Mapping]] = ...) -> None: ...

class BadRegisterReason(_message.Message):
    __slots__ = ["absent", "bit_is_always_one", "bit_requires", "limit_not_in_pages", "limit_too_large", "msr_refused", "no_value", "not_canonical", "other_architecture", "reserved_attributes", "reserved_bits", "system_refused", "too_wide", "unknown_msr", "xcr0_refused"]
    class BitIsAlwaysOne(_message.Message):
        __slots__ = ["bit"]
        BIT_FIELD_NUMBER: _ClassVar[int]
        bit: int
        def __init__(self, bit: _Optional[int] = ...) -> None: ...
    class BitRequires(_message.Message):
        __slots__ = ["bit", "requires"]
        BIT_FIELD_NUMBER: _ClassVar[int]
        REQUIRES_FIELD_NUMBER: _ClassVar[int]
        bit: int
        requires: int
        def __init__(self, bit: _Optional[int] = ..., requires: _Optional[int] = ...) -> None: ...
    class MsrRefused(_message.Message):
        __slots__ = ["value"]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        value: int
        def __init__(self, value: _Optional[int] = ...) -> None: ...
    class NotCanonical(_message.Message):
        __slots__ = ["address", "bits"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        BITS_FIELD_NUMBER: _ClassVar[int]
        address: int
        bits: int
        def __init__(self, address: _Optional[int] = ..., bits: _Optional[int] = ...) -> None: ...
    class ReservedAttributes(_message.Message):
        __slots__ = ["reserved"]
        RESERVED_FIELD_NUMBER: _ClassVar[int]
        reserved: int
        def __init__(self, reserved: _Optional[int] = ...) -> None: ...
    class ReservedBits(_message.Message):
        __slots__ = ["reserved", "value"]
        RESERVED_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        reserved: int
        value: int
        def __init__(self, value: _Optional[int] = ..., reserved: _Optional[int] = ...) -> None: ...
    class TooWide(_message.Message):
        __slots__ = ["bits"]
        BITS_FIELD_NUMBER: _ClassVar[int]
        bits: int
        def __init__(self, bits: _Optional[int] = ...) -> None: ...
    class Xcr0Refused(_message.Message):
        __slots__ = ["value"]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        value: int
        def __init__(self, value: _Optional[int] = ...) -> None: ...
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    BIT_IS_ALWAYS_ONE_FIELD_NUMBER: _ClassVar[int]
    BIT_REQUIRES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_NOT_IN_PAGES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_TOO_LARGE_FIELD_NUMBER: _ClassVar[int]
    MSR_REFUSED_FIELD_NUMBER: _ClassVar[int]
    NOT_CANONICAL_FIELD_NUMBER: _ClassVar[int]
    NO_VALUE_FIELD_NUMBER: _ClassVar[int]
    OTHER_ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    RESERVED_ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BITS_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_REFUSED_FIELD_NUMBER: _ClassVar[int]
    TOO_WIDE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_MSR_FIELD_NUMBER: _ClassVar[int]
    XCR0_REFUSED_FIELD_NUMBER: _ClassVar[int]
    absent: _nothing_pb2.Nothing
    bit_is_always_one: BadRegisterReason.BitIsAlwaysOne
    bit_requires: BadRegisterReason.BitRequires
    limit_not_in_pages: _nothing_pb2.Nothing
    limit_too_large: _nothing_pb2.Nothing
    msr_refused: BadRegisterReason.MsrRefused
    no_value: _nothing_pb2.Nothing
    not_canonical: BadRegisterReason.NotCanonical
    other_architecture: _nothing_pb2.Nothing
    reserved_attributes: BadRegisterReason.ReservedAttributes
    reserved_bits: BadRegisterReason.ReservedBits
    system_refused: _nothing_pb2.Nothing
    too_wide: BadRegisterReason.TooWide
    unknown_msr: _nothing_pb2.Nothing
    xcr0_refused: BadRegisterReason.Xcr0Refused
    def __init__(self, other_architecture: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., absent: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., no_value: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., reserved_bits: _Optional[_Union[BadRegisterReason.ReservedBits, _Mapping]] = ..., bit_is_always_one: _Optional[_Union[BadRegisterReason.BitIsAlwaysOne, _Mapping]] = ..., bit_requires: _Optional[_Union[BadRegisterReason.BitRequires, _Mapping]] = ..., too_wide: _Optional[_Union[BadRegisterReason.TooWide, _Mapping]] = ..., not_canonical: _Optional[_Union[BadRegisterReason.NotCanonical, _Mapping]] = ..., reserved_attributes: _Optional[_Union[BadRegisterReason.ReservedAttributes, _Mapping]] = ..., limit_not_in_pages: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., limit_too_large: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., unknown_msr: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., msr_refused: _Optional[_Union[BadRegisterReason.MsrRefused, _Mapping]] = ..., xcr0_refused: _Optional[_Union[BadRegisterReason.Xcr0Refused, _Mapping]] = ..., system_refused: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...

class DebugError(_message.Message):
    __slots__ = ["already_attached", "bad_breakpoint", "bad_length", "bad_message", "bad_register", "detached", "ended", "guest_uses_slots", "held_by_vmm", "hypervisor", "machine_failed", "memory_out_of_reach", "no_device_access", "no_free_slot", "no_memory", "no_such_breakpoint", "no_such_vp", "no_thread", "not_attached", "not_executable", "not_mapped", "not_stopped", "not_your_session", "nothing_to_run", "overdue", "runner_bug", "too_many_breakpoints", "unsupported", "vp_thread_ended"]
    class BadBreakpoint(_message.Message):
        __slots__ = ["address", "len"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        LEN_FIELD_NUMBER: _ClassVar[int]
        address: int
        len: int
        def __init__(self, address: _Optional[int] = ..., len: _Optional[int] = ...) -> None: ...
    class BadLength(_message.Message):
        __slots__ = ["address", "len"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        LEN_FIELD_NUMBER: _ClassVar[int]
        address: int
        len: int
        def __init__(self, address: _Optional[int] = ..., len: _Optional[int] = ...) -> None: ...
    class BadRegister(_message.Message):
        __slots__ = ["name", "reason"]
        NAME_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        name: str
        reason: BadRegisterReason
        def __init__(self, name: _Optional[str] = ..., reason: _Optional[_Union[BadRegisterReason, _Mapping]] = ...) -> None: ...
    class Ended(_message.Message):
        __slots__ = ["how"]
        HOW_FIELD_NUMBER: _ClassVar[int]
        how: _run_pb2.GuestEnd
        def __init__(self, how: _Optional[_Union[_run_pb2.GuestEnd, _Mapping]] = ...) -> None: ...
    class GuestUsesSlots(_message.Message):
        __slots__ = ["guest", "slots", "yours"]
        GUEST_FIELD_NUMBER: _ClassVar[int]
        SLOTS_FIELD_NUMBER: _ClassVar[int]
        YOURS_FIELD_NUMBER: _ClassVar[int]
        guest: int
        slots: int
        yours: int
        def __init__(self, slots: _Optional[int] = ..., guest: _Optional[int] = ..., yours: _Optional[int] = ...) -> None: ...
    class HeldByVmm(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class Hypervisor(_message.Message):
        __slots__ = ["call", "error"]
        CALL_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        call: HypervisorCall
        error: OsError
        def __init__(self, call: _Optional[_Union[HypervisorCall, _Mapping]] = ..., error: _Optional[_Union[OsError, _Mapping]] = ...) -> None: ...
    class MachineFailed(_message.Message):
        __slots__ = ["call", "how"]
        CALL_FIELD_NUMBER: _ClassVar[int]
        HOW_FIELD_NUMBER: _ClassVar[int]
        call: MachineCall
        how: MachineFailure
        def __init__(self, call: _Optional[_Union[MachineCall, _Mapping]] = ..., how: _Optional[_Union[MachineFailure, _Mapping]] = ...) -> None: ...
    class MemoryOutOfReach(_message.Message):
        __slots__ = ["gpa"]
        GPA_FIELD_NUMBER: _ClassVar[int]
        gpa: int
        def __init__(self, gpa: _Optional[int] = ...) -> None: ...
    class NoDeviceAccess(_message.Message):
        __slots__ = ["gpa"]
        GPA_FIELD_NUMBER: _ClassVar[int]
        gpa: int
        def __init__(self, gpa: _Optional[int] = ...) -> None: ...
    class NoFreeSlot(_message.Message):
        __slots__ = ["slots"]
        SLOTS_FIELD_NUMBER: _ClassVar[int]
        slots: int
        def __init__(self, slots: _Optional[int] = ...) -> None: ...
    class NoMemory(_message.Message):
        __slots__ = ["gpa"]
        GPA_FIELD_NUMBER: _ClassVar[int]
        gpa: int
        def __init__(self, gpa: _Optional[int] = ...) -> None: ...
    class NoSuchBreakpoint(_message.Message):
        __slots__ = ["address"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        address: int
        def __init__(self, address: _Optional[int] = ...) -> None: ...
    class NoSuchVp(_message.Message):
        __slots__ = ["count", "vp"]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        count: int
        vp: int
        def __init__(self, vp: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...
    class NoThread(_message.Message):
        __slots__ = ["call", "error"]
        CALL_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        call: MachineCall
        error: OsError
        def __init__(self, call: _Optional[_Union[MachineCall, _Mapping]] = ..., error: _Optional[_Union[OsError, _Mapping]] = ...) -> None: ...
    class NotExecutable(_message.Message):
        __slots__ = ["address"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        address: int
        def __init__(self, address: _Optional[int] = ...) -> None: ...
    class NotMapped(_message.Message):
        __slots__ = ["gva", "vp", "why"]
        GVA_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        WHY_FIELD_NUMBER: _ClassVar[int]
        gva: int
        vp: int
        why: _memory_pb2.WalkFaultReason
        def __init__(self, vp: _Optional[int] = ..., gva: _Optional[int] = ..., why: _Optional[_Union[_memory_pb2.WalkFaultReason, _Mapping]] = ...) -> None: ...
    class Overdue(_message.Message):
        __slots__ = ["call", "seconds"]
        CALL_FIELD_NUMBER: _ClassVar[int]
        SECONDS_FIELD_NUMBER: _ClassVar[int]
        call: MachineCall
        seconds: int
        def __init__(self, call: _Optional[_Union[MachineCall, _Mapping]] = ..., seconds: _Optional[int] = ...) -> None: ...
    class TooManyBreakpoints(_message.Message):
        __slots__ = ["limit"]
        LIMIT_FIELD_NUMBER: _ClassVar[int]
        limit: int
        def __init__(self, limit: _Optional[int] = ...) -> None: ...
    class VpThreadEnded(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    ALREADY_ATTACHED_FIELD_NUMBER: _ClassVar[int]
    BAD_BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
    BAD_LENGTH_FIELD_NUMBER: _ClassVar[int]
    BAD_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BAD_REGISTER_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    GUEST_USES_SLOTS_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_VMM_FIELD_NUMBER: _ClassVar[int]
    HYPERVISOR_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FAILED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_OUT_OF_REACH_FIELD_NUMBER: _ClassVar[int]
    NOTHING_TO_RUN_FIELD_NUMBER: _ClassVar[int]
    NOT_ATTACHED_FIELD_NUMBER: _ClassVar[int]
    NOT_EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    NOT_MAPPED_FIELD_NUMBER: _ClassVar[int]
    NOT_STOPPED_FIELD_NUMBER: _ClassVar[int]
    NOT_YOUR_SESSION_FIELD_NUMBER: _ClassVar[int]
    NO_DEVICE_ACCESS_FIELD_NUMBER: _ClassVar[int]
    NO_FREE_SLOT_FIELD_NUMBER: _ClassVar[int]
    NO_MEMORY_FIELD_NUMBER: _ClassVar[int]
    NO_SUCH_BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
    NO_SUCH_VP_FIELD_NUMBER: _ClassVar[int]
    NO_THREAD_FIELD_NUMBER: _ClassVar[int]
    OVERDUE_FIELD_NUMBER: _ClassVar[int]
    RUNNER_BUG_FIELD_NUMBER: _ClassVar[int]
    TOO_MANY_BREAKPOINTS_FIELD_NUMBER: _ClassVar[int]
    UNSUPPORTED_FIELD_NUMBER: _ClassVar[int]
    VP_THREAD_ENDED_FIELD_NUMBER: _ClassVar[int]
    already_attached: _nothing_pb2.Nothing
    bad_breakpoint: DebugError.BadBreakpoint
    bad_length: DebugError.BadLength
    bad_message: BadMessage
    bad_register: DebugError.BadRegister
    detached: _nothing_pb2.Nothing
    ended: DebugError.Ended
    guest_uses_slots: DebugError.GuestUsesSlots
    held_by_vmm: DebugError.HeldByVmm
    hypervisor: DebugError.Hypervisor
    machine_failed: DebugError.MachineFailed
    memory_out_of_reach: DebugError.MemoryOutOfReach
    no_device_access: DebugError.NoDeviceAccess
    no_free_slot: DebugError.NoFreeSlot
    no_memory: DebugError.NoMemory
    no_such_breakpoint: DebugError.NoSuchBreakpoint
    no_such_vp: DebugError.NoSuchVp
    no_thread: DebugError.NoThread
    not_attached: _nothing_pb2.Nothing
    not_executable: DebugError.NotExecutable
    not_mapped: DebugError.NotMapped
    not_stopped: _nothing_pb2.Nothing
    not_your_session: _nothing_pb2.Nothing
    nothing_to_run: _nothing_pb2.Nothing
    overdue: DebugError.Overdue
    runner_bug: RunnerBug
    too_many_breakpoints: DebugError.TooManyBreakpoints
    unsupported: Unsupported
    vp_thread_ended: DebugError.VpThreadEnded
    def __init__(self, already_attached: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_attached: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_your_session: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., detached: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., ended: _Optional[_Union[DebugError.Ended, _Mapping]] = ..., not_stopped: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., no_such_vp: _Optional[_Union[DebugError.NoSuchVp, _Mapping]] = ..., nothing_to_run: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_mapped: _Optional[_Union[DebugError.NotMapped, _Mapping]] = ..., no_memory: _Optional[_Union[DebugError.NoMemory, _Mapping]] = ..., memory_out_of_reach: _Optional[_Union[DebugError.MemoryOutOfReach, _Mapping]] = ..., bad_length: _Optional[_Union[DebugError.BadLength, _Mapping]] = ..., bad_breakpoint: _Optional[_Union[DebugError.BadBreakpoint, _Mapping]] = ..., too_many_breakpoints: _Optional[_Union[DebugError.TooManyBreakpoints, _Mapping]] = ..., no_free_slot: _Optional[_Union[DebugError.NoFreeSlot, _Mapping]] = ..., guest_uses_slots: _Optional[_Union[DebugError.GuestUsesSlots, _Mapping]] = ..., not_executable: _Optional[_Union[DebugError.NotExecutable, _Mapping]] = ..., no_such_breakpoint: _Optional[_Union[DebugError.NoSuchBreakpoint, _Mapping]] = ..., bad_register: _Optional[_Union[DebugError.BadRegister, _Mapping]] = ..., unsupported: _Optional[_Union[Unsupported, _Mapping]] = ..., overdue: _Optional[_Union[DebugError.Overdue, _Mapping]] = ..., machine_failed: _Optional[_Union[DebugError.MachineFailed, _Mapping]] = ..., no_thread: _Optional[_Union[DebugError.NoThread, _Mapping]] = ..., vp_thread_ended: _Optional[_Union[DebugError.VpThreadEnded, _Mapping]] = ..., held_by_vmm: _Optional[_Union[DebugError.HeldByVmm, _Mapping]] = ..., no_device_access: _Optional[_Union[DebugError.NoDeviceAccess, _Mapping]] = ..., hypervisor: _Optional[_Union[DebugError.Hypervisor, _Mapping]] = ..., runner_bug: _Optional[_Union[RunnerBug, _Mapping]] = ..., bad_message: _Optional[_Union[BadMessage, _Mapping]] = ...) -> None: ...

class HypervisorCall(_message.Message):
    __slots__ = ["drop_exception", "hold_interrupts", "raise_nmi", "read_cpuid", "read_debug_registers", "read_events", "read_local_apic", "read_msr", "read_registers", "read_run_state", "read_vector_registers", "set_back_counter", "set_debug_state", "skip_instruction", "write_debug_registers", "write_local_apic", "write_msr", "write_registers", "write_vector_registers"]
    class ReadMsr(_message.Message):
        __slots__ = ["index"]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        index: int
        def __init__(self, index: _Optional[int] = ...) -> None: ...
    class WriteMsr(_message.Message):
        __slots__ = ["index"]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        index: int
        def __init__(self, index: _Optional[int] = ...) -> None: ...
    DROP_EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    HOLD_INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    RAISE_NMI_FIELD_NUMBER: _ClassVar[int]
    READ_CPUID_FIELD_NUMBER: _ClassVar[int]
    READ_DEBUG_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    READ_EVENTS_FIELD_NUMBER: _ClassVar[int]
    READ_LOCAL_APIC_FIELD_NUMBER: _ClassVar[int]
    READ_MSR_FIELD_NUMBER: _ClassVar[int]
    READ_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    READ_RUN_STATE_FIELD_NUMBER: _ClassVar[int]
    READ_VECTOR_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    SET_BACK_COUNTER_FIELD_NUMBER: _ClassVar[int]
    SET_DEBUG_STATE_FIELD_NUMBER: _ClassVar[int]
    SKIP_INSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    WRITE_DEBUG_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    WRITE_LOCAL_APIC_FIELD_NUMBER: _ClassVar[int]
    WRITE_MSR_FIELD_NUMBER: _ClassVar[int]
    WRITE_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    WRITE_VECTOR_REGISTERS_FIELD_NUMBER: _ClassVar[int]
    drop_exception: _nothing_pb2.Nothing
    hold_interrupts: _nothing_pb2.Nothing
    raise_nmi: _nothing_pb2.Nothing
    read_cpuid: _nothing_pb2.Nothing
    read_debug_registers: _nothing_pb2.Nothing
    read_events: _nothing_pb2.Nothing
    read_local_apic: _nothing_pb2.Nothing
    read_msr: HypervisorCall.ReadMsr
    read_registers: _nothing_pb2.Nothing
    read_run_state: _nothing_pb2.Nothing
    read_vector_registers: _nothing_pb2.Nothing
    set_back_counter: _nothing_pb2.Nothing
    set_debug_state: _nothing_pb2.Nothing
    skip_instruction: _nothing_pb2.Nothing
    write_debug_registers: _nothing_pb2.Nothing
    write_local_apic: _nothing_pb2.Nothing
    write_msr: HypervisorCall.WriteMsr
    write_registers: _nothing_pb2.Nothing
    write_vector_registers: _nothing_pb2.Nothing
    def __init__(self, read_cpuid: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., read_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., write_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., read_vector_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., write_vector_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., read_debug_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., write_debug_registers: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., set_debug_state: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., read_msr: _Optional[_Union[HypervisorCall.ReadMsr, _Mapping]] = ..., write_msr: _Optional[_Union[HypervisorCall.WriteMsr, _Mapping]] = ..., read_events: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., hold_interrupts: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., drop_exception: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., skip_instruction: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., raise_nmi: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., read_run_state: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., read_local_apic: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., write_local_apic: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., set_back_counter: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...

class MachineCall(_message.Message):
    __slots__ = ["init_vp", "read", "reset", "write"]
    class InitVp(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class Read(_message.Message):
        __slots__ = ["address", "len"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        LEN_FIELD_NUMBER: _ClassVar[int]
        address: _memory_pb2.GuestAddress
        len: int
        def __init__(self, address: _Optional[_Union[_memory_pb2.GuestAddress, _Mapping]] = ..., len: _Optional[int] = ...) -> None: ...
    class Write(_message.Message):
        __slots__ = ["address", "len"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        LEN_FIELD_NUMBER: _ClassVar[int]
        address: _memory_pb2.GuestAddress
        len: int
        def __init__(self, address: _Optional[_Union[_memory_pb2.GuestAddress, _Mapping]] = ..., len: _Optional[int] = ...) -> None: ...
    INIT_VP_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    init_vp: MachineCall.InitVp
    read: MachineCall.Read
    reset: _nothing_pb2.Nothing
    write: MachineCall.Write
    def __init__(self, read: _Optional[_Union[MachineCall.Read, _Mapping]] = ..., write: _Optional[_Union[MachineCall.Write, _Mapping]] = ..., reset: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., init_vp: _Optional[_Union[MachineCall.InitVp, _Mapping]] = ...) -> None: ...

class MachineFailure(_message.Message):
    __slots__ = ["panicked", "returned"]
    PANICKED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    panicked: _nothing_pb2.Nothing
    returned: str
    def __init__(self, returned: _Optional[str] = ..., panicked: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...

class OsError(_message.Message):
    __slots__ = ["errno", "text"]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    errno: int
    text: str
    def __init__(self, errno: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class RunnerBug(_message.Message):
    __slots__ = ["illegal_input", "not_started"]
    class IllegalInput(_message.Message):
        __slots__ = ["input", "phase"]
        INPUT_FIELD_NUMBER: _ClassVar[int]
        PHASE_FIELD_NUMBER: _ClassVar[int]
        input: str
        phase: str
        def __init__(self, input: _Optional[str] = ..., phase: _Optional[str] = ...) -> None: ...
    ILLEGAL_INPUT_FIELD_NUMBER: _ClassVar[int]
    NOT_STARTED_FIELD_NUMBER: _ClassVar[int]
    illegal_input: RunnerBug.IllegalInput
    not_started: _nothing_pb2.Nothing
    def __init__(self, illegal_input: _Optional[_Union[RunnerBug.IllegalInput, _Mapping]] = ..., not_started: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...

class Unsupported(_message.Message):
    __slots__ = ["clock_rate_set", "clock_rate_unknown", "clocks_of_vmm", "host", "not_probed", "not_started", "request", "reset_of_vmm"]
    class NotStarted(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class Request(_message.Message):
        __slots__ = ["request"]
        REQUEST_FIELD_NUMBER: _ClassVar[int]
        request: str
        def __init__(self, request: _Optional[str] = ...) -> None: ...
    CLOCKS_OF_VMM_FIELD_NUMBER: _ClassVar[int]
    CLOCK_RATE_SET_FIELD_NUMBER: _ClassVar[int]
    CLOCK_RATE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    NOT_PROBED_FIELD_NUMBER: _ClassVar[int]
    NOT_STARTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESET_OF_VMM_FIELD_NUMBER: _ClassVar[int]
    clock_rate_set: _nothing_pb2.Nothing
    clock_rate_unknown: _nothing_pb2.Nothing
    clocks_of_vmm: _nothing_pb2.Nothing
    host: _capabilities_pb2.Capability
    not_probed: _capabilities_pb2.CapabilityKind
    not_started: Unsupported.NotStarted
    request: Unsupported.Request
    reset_of_vmm: _nothing_pb2.Nothing
    def __init__(self, host: _Optional[_Union[_capabilities_pb2.Capability, _Mapping]] = ..., not_probed: _Optional[_Union[_capabilities_pb2.CapabilityKind, str]] = ..., clock_rate_set: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., clock_rate_unknown: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., not_started: _Optional[_Union[Unsupported.NotStarted, _Mapping]] = ..., request: _Optional[_Union[Unsupported.Request, _Mapping]] = ..., clocks_of_vmm: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., reset_of_vmm: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...
