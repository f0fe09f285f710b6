from trapgate.debug.v1 import breakpoints_pb2 as _breakpoints_pb2
from trapgate.debug.v1 import errors_pb2 as _errors_pb2
from trapgate.debug.v1 import memory_pb2 as _memory_pb2
from trapgate.debug.v1 import nothing_pb2 as _nothing_pb2
from trapgate.debug.v1 import registers_pb2 as _registers_pb2
from trapgate.debug.v1 import run_pb2 as _run_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Answer(_message.Message):
    __slots__ = ["attached", "breakpoints", "done", "error", "freeze_time", "id", "last_stop", "mapped_pages", "memory", "memory_region", "msr", "ram_ranges", "status", "step_interrupts", "stop", "stop_on", "translation", "vp_state"]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    BREAKPOINTS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FREEZE_TIME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LAST_STOP_FIELD_NUMBER: _ClassVar[int]
    MAPPED_PAGES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_REGION_FIELD_NUMBER: _ClassVar[int]
    MSR_FIELD_NUMBER: _ClassVar[int]
    RAM_RANGES_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STEP_INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    STOP_ON_FIELD_NUMBER: _ClassVar[int]
    TRANSLATION_FIELD_NUMBER: _ClassVar[int]
    VP_STATE_FIELD_NUMBER: _ClassVar[int]
    attached: Attached
    breakpoints: _breakpoints_pb2.BreakpointList
    done: _nothing_pb2.Nothing
    error: _errors_pb2.DebugError
    freeze_time: _run_pb2.FreezeTime
    id: int
    last_stop: _run_pb2.LastStop
    mapped_pages: _memory_pb2.MappedPages
    memory: bytes
    memory_region: _memory_pb2.MemoryRegion
    msr: int
    ram_ranges: _memory_pb2.RamRanges
    status: _run_pb2.VmStatus
    step_interrupts: _run_pb2.StepInterrupts
    stop: _run_pb2.StopEvent
    stop_on: int
    translation: _memory_pb2.Translation
    vp_state: _registers_pb2.VpState
    def __init__(self, id: _Optional[int] = ..., error: _Optional[_Union[_errors_pb2.DebugError, _Mapping]] = ..., attached: _Optional[_Union[Attached, _Mapping]] = ..., done: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., stop: _Optional[_Union[_run_pb2.StopEvent, _Mapping]] = ..., breakpoints: _Optional[_Union[_breakpoints_pb2.BreakpointList, _Mapping]] = ..., step_interrupts: _Optional[_Union[_run_pb2.StepInterrupts, str]] = ..., vp_state: _Optional[_Union[_registers_pb2.VpState, _Mapping]] = ..., last_stop: _Optional[_Union[_run_pb2.LastStop, _Mapping]] = ..., msr: _Optional[int] = ..., memory: _Optional[bytes] = ..., translation: _Optional[_Union[_memory_pb2.Translation, _Mapping]] = ..., mapped_pages: _Optional[_Union[_memory_pb2.MappedPages, _Mapping]] = ..., memory_region: _Optional[_Union[_memory_pb2.MemoryRegion, _Mapping]] = ..., ram_ranges: _Optional[_Union[_memory_pb2.RamRanges, _Mapping]] = ..., freeze_time: _Optional[_Union[_run_pb2.FreezeTime, str]] = ..., status: _Optional[_Union[_run_pb2.VmStatus, _Mapping]] = ..., stop_on: _Optional[int] = ...) -> None: ...

class Attached(_message.Message):
    __slots__ = ["info", "session"]
    INFO_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    info: _run_pb2.AttachInfo
    session: int
    def __init__(self, session: _Optional[int] = ..., info: _Optional[_Union[_run_pb2.AttachInfo, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ["newest", "oldest", "protocol"]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    newest: int
    oldest: int
    protocol: str
    def __init__(self, protocol: _Optional[str] = ..., oldest: _Optional[int] = ..., newest: _Optional[int] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ["attach", "break_", "breakpoints", "detach", "freeze_time", "get_vp_state", "id", "lost", "mapped_pages", "memory_region", "nmi", "ram_ranges", "read_memory", "read_msr", "redirect", "reset", "resume", "session", "set_debug_state", "set_vp_state", "status", "step_interrupts", "stop_on", "stop_reason", "translate", "write_memory", "write_msr"]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    BREAKPOINTS_FIELD_NUMBER: _ClassVar[int]
    BREAK__FIELD_NUMBER: _ClassVar[int]
    DETACH_FIELD_NUMBER: _ClassVar[int]
    FREEZE_TIME_FIELD_NUMBER: _ClassVar[int]
    GET_VP_STATE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    MAPPED_PAGES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_REGION_FIELD_NUMBER: _ClassVar[int]
    NMI_FIELD_NUMBER: _ClassVar[int]
    RAM_RANGES_FIELD_NUMBER: _ClassVar[int]
    READ_MEMORY_FIELD_NUMBER: _ClassVar[int]
    READ_MSR_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SET_DEBUG_STATE_FIELD_NUMBER: _ClassVar[int]
    SET_VP_STATE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STEP_INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    STOP_ON_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    TRANSLATE_FIELD_NUMBER: _ClassVar[int]
    WRITE_MEMORY_FIELD_NUMBER: _ClassVar[int]
    WRITE_MSR_FIELD_NUMBER: _ClassVar[int]
    attach: _run_pb2.DetachAction
    break_: _nothing_pb2.Nothing
    breakpoints: _nothing_pb2.Nothing
    detach: _run_pb2.DetachAction
    freeze_time: _run_pb2.NewFreezeTime
    get_vp_state: int
    id: int
    lost: _nothing_pb2.Nothing
    mapped_pages: _memory_pb2.VpAddress
    memory_region: _memory_pb2.VpAddress
    nmi: int
    ram_ranges: _nothing_pb2.Nothing
    read_memory: _memory_pb2.ReadMemory
    read_msr: _registers_pb2.ReadMsr
    redirect: int
    reset: _nothing_pb2.Nothing
    resume: _run_pb2.ResumeRequest
    session: int
    set_debug_state: _breakpoints_pb2.BreakpointChanges
    set_vp_state: _registers_pb2.SetVpState
    status: _nothing_pb2.Nothing
    step_interrupts: _run_pb2.NewStepInterrupts
    stop_on: _run_pb2.NewStopOn
    stop_reason: int
    translate: _memory_pb2.VpAddress
    write_memory: _memory_pb2.WriteMemory
    write_msr: _registers_pb2.WriteMsr
    def __init__(self, id: _Optional[int] = ..., session: _Optional[int] = ..., attach: _Optional[_Union[_run_pb2.DetachAction, str]] = ..., lost: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., detach: _Optional[_Union[_run_pb2.DetachAction, str]] = ..., resume: _Optional[_Union[_run_pb2.ResumeRequest, _Mapping]] = ..., break_: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., set_debug_state: _Optional[_Union[_breakpoints_pb2.BreakpointChanges, _Mapping]] = ..., breakpoints: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., step_interrupts: _Optional[_Union[_run_pb2.NewStepInterrupts, _Mapping]] = ..., get_vp_state: _Optional[int] = ..., set_vp_state: _Optional[_Union[_registers_pb2.SetVpState, _Mapping]] = ..., redirect: _Optional[int] = ..., stop_reason: _Optional[int] = ..., read_msr: _Optional[_Union[_registers_pb2.ReadMsr, _Mapping]] = ..., write_msr: _Optional[_Union[_registers_pb2.WriteMsr, _Mapping]] = ..., read_memory: _Optional[_Union[_memory_pb2.ReadMemory, _Mapping]] = ..., write_memory: _Optional[_Union[_memory_pb2.WriteMemory, _Mapping]] = ..., translate: _Optional[_Union[_memory_pb2.VpAddress, _Mapping]] = ..., mapped_pages: _Optional[_Union[_memory_pb2.VpAddress, _Mapping]] = ..., memory_region: _Optional[_Union[_memory_pb2.VpAddress, _Mapping]] = ..., ram_ranges: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., nmi: _Optional[int] = ..., freeze_time: _Optional[_Union[_run_pb2.NewFreezeTime, _Mapping]] = ..., status: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., stop_on: _Optional[_Union[_run_pb2.NewStopOn, _Mapping]] = ..., reset: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...
