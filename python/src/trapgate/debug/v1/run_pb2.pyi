from trapgate.debug.v1 import breakpoints_pb2 as _breakpoints_pb2
from trapgate.debug.v1 import capabilities_pb2 as _capabilities_pb2
from trapgate.debug.v1 import nothing_pb2 as _nothing_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

CPU_MODE_AARCH64: CpuMode
CPU_MODE_COMPATIBILITY16: CpuMode
CPU_MODE_COMPATIBILITY32: CpuMode
CPU_MODE_LONG64: CpuMode
CPU_MODE_PROTECTED16: CpuMode
CPU_MODE_PROTECTED32: CpuMode
CPU_MODE_REAL: CpuMode
CPU_MODE_UNSPECIFIED: CpuMode
CPU_MODE_VIRTUAL8086: CpuMode
DESCRIPTOR: _descriptor.FileDescriptor
DETACH_ACTION_KILL: DetachAction
DETACH_ACTION_KILL_UNLESS_HELD: DetachAction
DETACH_ACTION_RESUME: DetachAction
DETACH_ACTION_RESUME_UNLESS_CRASHED: DetachAction
DETACH_ACTION_RESUME_UNLESS_HELD: DetachAction
DETACH_ACTION_STAY: DetachAction
DETACH_ACTION_UNSPECIFIED: DetachAction
FAULT_REGISTERS_KEPT: FaultRegisters
FAULT_REGISTERS_RESET_BY_HYPERVISOR: FaultRegisters
FAULT_REGISTERS_UNSPECIFIED: FaultRegisters
FREEZE_TIME_OFF: FreezeTime
FREEZE_TIME_ON: FreezeTime
FREEZE_TIME_UNSPECIFIED: FreezeTime
GUEST_ARCH_AARCH64: GuestArch
GUEST_ARCH_UNSPECIFIED: GuestArch
GUEST_ARCH_X86_64: GuestArch
RUNNER_FAULT_DEBUG_STATE: RunnerFault
RUNNER_FAULT_THREAD_GONE: RunnerFault
RUNNER_FAULT_THREAD_PANICKED: RunnerFault
RUNNER_FAULT_UNSPECIFIED: RunnerFault
STEP_INTERRUPTS_HELD: StepInterrupts
STEP_INTERRUPTS_TAKEN: StepInterrupts
STEP_INTERRUPTS_UNSPECIFIED: StepInterrupts
VP_ACTIVITY_HALTED: VpActivity
VP_ACTIVITY_RUNNING: VpActivity
VP_ACTIVITY_STOPPED: VpActivity
VP_ACTIVITY_UNSPECIFIED: VpActivity
VP_ACTIVITY_WAITING_FOR_START: VpActivity

class AttachInfo(_message.Message):
    __slots__ = ["arch", "capabilities", "changes_while_stopped", "stop", "xfeatures"]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CHANGES_WHILE_STOPPED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    XFEATURES_FIELD_NUMBER: _ClassVar[int]
    arch: GuestArch
    capabilities: _containers.RepeatedCompositeFieldContainer[_capabilities_pb2.Capability]
    changes_while_stopped: bool
    stop: StopEvent
    xfeatures: XFeatures
    def __init__(self, arch: _Optional[_Union[GuestArch, str]] = ..., xfeatures: _Optional[_Union[XFeatures, _Mapping]] = ..., capabilities: _Optional[_Iterable[_Union[_capabilities_pb2.Capability, _Mapping]]] = ..., stop: _Optional[_Union[StopEvent, _Mapping]] = ..., changes_while_stopped: bool = ...) -> None: ...

class CrashCause(_message.Message):
    __slots__ = ["fail_entry", "internal", "run", "runner", "unknown_exit"]
    class FailEntry(_message.Message):
        __slots__ = ["hardware_reason"]
        HARDWARE_REASON_FIELD_NUMBER: _ClassVar[int]
        hardware_reason: int
        def __init__(self, hardware_reason: _Optional[int] = ...) -> None: ...
    class Internal(_message.Message):
        __slots__ = ["suberror"]
        SUBERROR_FIELD_NUMBER: _ClassVar[int]
        suberror: int
        def __init__(self, suberror: _Optional[int] = ...) -> None: ...
    class Run(_message.Message):
        __slots__ = ["errno"]
        ERRNO_FIELD_NUMBER: _ClassVar[int]
        errno: int
        def __init__(self, errno: _Optional[int] = ...) -> None: ...
    class UnknownExit(_message.Message):
        __slots__ = ["reason"]
        REASON_FIELD_NUMBER: _ClassVar[int]
        reason: int
        def __init__(self, reason: _Optional[int] = ...) -> None: ...
    FAIL_ENTRY_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_FIELD_NUMBER: _ClassVar[int]
    RUNNER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_EXIT_FIELD_NUMBER: _ClassVar[int]
    fail_entry: CrashCause.FailEntry
    internal: CrashCause.Internal
    run: CrashCause.Run
    runner: RunnerFault
    unknown_exit: CrashCause.UnknownExit
    def __init__(self, internal: _Optional[_Union[CrashCause.Internal, _Mapping]] = ..., fail_entry: _Optional[_Union[CrashCause.FailEntry, _Mapping]] = ..., run: _Optional[_Union[CrashCause.Run, _Mapping]] = ..., unknown_exit: _Optional[_Union[CrashCause.UnknownExit, _Mapping]] = ..., runner: _Optional[_Union[RunnerFault, str]] = ...) -> None: ...

class DebugStopReason(_message.Message):
    __slots__ = ["break_", "breakpoint", "crashed", "panic", "power_off", "reset", "single_step", "triple_fault", "watchpoint"]
    class Breakpoint(_message.Message):
        __slots__ = ["breakpoint", "vp"]
        BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        breakpoint: _breakpoints_pb2.Breakpoint
        vp: int
        def __init__(self, vp: _Optional[int] = ..., breakpoint: _Optional[_Union[_breakpoints_pb2.Breakpoint, _Mapping]] = ...) -> None: ...
    class Crashed(_message.Message):
        __slots__ = ["cause", "vp"]
        CAUSE_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        cause: CrashCause
        vp: int
        def __init__(self, vp: _Optional[int] = ..., cause: _Optional[_Union[CrashCause, _Mapping]] = ...) -> None: ...
    class Panic(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class PowerOff(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class Reset(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class SingleStep(_message.Message):
        __slots__ = ["vp"]
        VP_FIELD_NUMBER: _ClassVar[int]
        vp: int
        def __init__(self, vp: _Optional[int] = ...) -> None: ...
    class TripleFault(_message.Message):
        __slots__ = ["registers", "vp"]
        REGISTERS_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        registers: FaultRegisters
        vp: int
        def __init__(self, vp: _Optional[int] = ..., registers: _Optional[_Union[FaultRegisters, str]] = ...) -> None: ...
    class Watchpoint(_message.Message):
        __slots__ = ["address", "breakpoint", "vp"]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        address: int
        breakpoint: _breakpoints_pb2.Breakpoint
        vp: int
        def __init__(self, vp: _Optional[int] = ..., breakpoint: _Optional[_Union[_breakpoints_pb2.Breakpoint, _Mapping]] = ..., address: _Optional[int] = ...) -> None: ...
    BREAKPOINT_FIELD_NUMBER: _ClassVar[int]
    BREAK__FIELD_NUMBER: _ClassVar[int]
    CRASHED_FIELD_NUMBER: _ClassVar[int]
    PANIC_FIELD_NUMBER: _ClassVar[int]
    POWER_OFF_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    SINGLE_STEP_FIELD_NUMBER: _ClassVar[int]
    TRIPLE_FAULT_FIELD_NUMBER: _ClassVar[int]
    WATCHPOINT_FIELD_NUMBER: _ClassVar[int]
    break_: _nothing_pb2.Nothing
    breakpoint: DebugStopReason.Breakpoint
    crashed: DebugStopReason.Crashed
    panic: DebugStopReason.Panic
    power_off: DebugStopReason.PowerOff
    reset: DebugStopReason.Reset
    single_step: DebugStopReason.SingleStep
    triple_fault: DebugStopReason.TripleFault
    watchpoint: DebugStopReason.Watchpoint
    def __init__(self, break_: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., single_step: _Optional[_Union[DebugStopReason.SingleStep, _Mapping]] = ..., breakpoint: _Optional[_Union[DebugStopReason.Breakpoint, _Mapping]] = ..., watchpoint: _Optional[_Union[DebugStopReason.Watchpoint, _Mapping]] = ..., triple_fault: _Optional[_Union[DebugStopReason.TripleFault, _Mapping]] = ..., reset: _Optional[_Union[DebugStopReason.Reset, _Mapping]] = ..., power_off: _Optional[_Union[DebugStopReason.PowerOff, _Mapping]] = ..., crashed: _Optional[_Union[DebugStopReason.Crashed, _Mapping]] = ..., panic: _Optional[_Union[DebugStopReason.Panic, _Mapping]] = ...) -> None: ...

class GuestEnd(_message.Message):
    __slots__ = ["crashed", "killed", "power_off", "released", "reset", "reset_failed", "stopped", "triple_fault"]
    class Crashed(_message.Message):
        __slots__ = ["cause", "shown", "vp"]
        CAUSE_FIELD_NUMBER: _ClassVar[int]
        SHOWN_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        cause: CrashCause
        shown: bool
        vp: int
        def __init__(self, vp: _Optional[int] = ..., cause: _Optional[_Union[CrashCause, _Mapping]] = ..., shown: bool = ...) -> None: ...
    class TripleFault(_message.Message):
        __slots__ = ["shown", "vp"]
        SHOWN_FIELD_NUMBER: _ClassVar[int]
        VP_FIELD_NUMBER: _ClassVar[int]
        shown: bool
        vp: int
        def __init__(self, vp: _Optional[int] = ..., shown: bool = ...) -> None: ...
    CRASHED_FIELD_NUMBER: _ClassVar[int]
    KILLED_FIELD_NUMBER: _ClassVar[int]
    POWER_OFF_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    RESET_FAILED_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    TRIPLE_FAULT_FIELD_NUMBER: _ClassVar[int]
    crashed: GuestEnd.Crashed
    killed: _nothing_pb2.Nothing
    power_off: _nothing_pb2.Nothing
    released: _nothing_pb2.Nothing
    reset: _nothing_pb2.Nothing
    reset_failed: _nothing_pb2.Nothing
    stopped: _nothing_pb2.Nothing
    triple_fault: GuestEnd.TripleFault
    def __init__(self, power_off: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., reset: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., reset_failed: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., triple_fault: _Optional[_Union[GuestEnd.TripleFault, _Mapping]] = ..., crashed: _Optional[_Union[GuestEnd.Crashed, _Mapping]] = ..., killed: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., stopped: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., released: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ...) -> None: ...

class LastStop(_message.Message):
    __slots__ = ["reason"]
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: DebugStopReason
    def __init__(self, reason: _Optional[_Union[DebugStopReason, _Mapping]] = ...) -> None: ...

class NewFreezeTime(_message.Message):
    __slots__ = ["value"]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: FreezeTime
    def __init__(self, value: _Optional[_Union[FreezeTime, str]] = ...) -> None: ...

class NewStepInterrupts(_message.Message):
    __slots__ = ["value"]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: StepInterrupts
    def __init__(self, value: _Optional[_Union[StepInterrupts, str]] = ...) -> None: ...

class NewStopOn(_message.Message):
    __slots__ = ["value"]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: int
    def __init__(self, value: _Optional[int] = ...) -> None: ...

class OneVpAction(_message.Message):
    __slots__ = ["action", "vp"]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    VP_FIELD_NUMBER: _ClassVar[int]
    action: VpAction
    vp: int
    def __init__(self, vp: _Optional[int] = ..., action: _Optional[_Union[VpAction, _Mapping]] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ["actions", "others"]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[OneVpAction]
    others: VpAction
    def __init__(self, others: _Optional[_Union[VpAction, _Mapping]] = ..., actions: _Optional[_Iterable[_Union[OneVpAction, _Mapping]]] = ...) -> None: ...

class StopEvent(_message.Message):
    __slots__ = ["epoch", "reason", "vps"]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VPS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    reason: DebugStopReason
    vps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., reason: _Optional[_Union[DebugStopReason, _Mapping]] = ..., vps: _Optional[_Iterable[int]] = ...) -> None: ...

class VmStatus(_message.Message):
    __slots__ = ["vps"]
    VPS_FIELD_NUMBER: _ClassVar[int]
    vps: _containers.RepeatedCompositeFieldContainer[VpStatus]
    def __init__(self, vps: _Optional[_Iterable[_Union[VpStatus, _Mapping]]] = ...) -> None: ...

class VpAction(_message.Message):
    __slots__ = ["run", "stay", "step", "step_range"]
    class StepRange(_message.Message):
        __slots__ = ["end", "start"]
        END_FIELD_NUMBER: _ClassVar[int]
        START_FIELD_NUMBER: _ClassVar[int]
        end: int
        start: int
        def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    STAY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_RANGE_FIELD_NUMBER: _ClassVar[int]
    run: _nothing_pb2.Nothing
    stay: _nothing_pb2.Nothing
    step: _nothing_pb2.Nothing
    step_range: VpAction.StepRange
    def __init__(self, stay: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., run: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., step: _Optional[_Union[_nothing_pb2.Nothing, _Mapping]] = ..., step_range: _Optional[_Union[VpAction.StepRange, _Mapping]] = ...) -> None: ...

class VpStatus(_message.Message):
    __slots__ = ["activity", "held_by_vmm", "mode", "privilege", "vp"]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_VMM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGE_FIELD_NUMBER: _ClassVar[int]
    VP_FIELD_NUMBER: _ClassVar[int]
    activity: VpActivity
    held_by_vmm: bool
    mode: CpuMode
    privilege: int
    vp: int
    def __init__(self, vp: _Optional[int] = ..., activity: _Optional[_Union[VpActivity, str]] = ..., mode: _Optional[_Union[CpuMode, str]] = ..., privilege: _Optional[int] = ..., held_by_vmm: bool = ...) -> None: ...

class XFeatures(_message.Message):
    __slots__ = ["avx", "avx512", "pkru"]
    AVX512_FIELD_NUMBER: _ClassVar[int]
    AVX_FIELD_NUMBER: _ClassVar[int]
    PKRU_FIELD_NUMBER: _ClassVar[int]
    avx: bool
    avx512: bool
    pkru: bool
    def __init__(self, avx: bool = ..., avx512: bool = ..., pkru: bool = ...) -> None: ...

class DetachAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class GuestArch(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class FaultRegisters(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class RunnerFault(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class StepInterrupts(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class FreezeTime(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class VpActivity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class CpuMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
