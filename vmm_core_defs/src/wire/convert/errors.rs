//! Errors.

use super::Field;
use super::Value;
use super::message;
use super::missing;
use super::proto;
use super::required;
use super::union;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::BadRegisterReason;
use crate::debug_rpc::DebugError;
use crate::debug_rpc::HypervisorCall;
use crate::debug_rpc::MachineCall;
use crate::debug_rpc::MachineFailure;
use crate::debug_rpc::OsError;
use crate::debug_rpc::RunnerBug;
use crate::debug_rpc::Unsupported;

message! {
    OsError { errno, text }
}

union!(DebugError, debug_error {
    AlreadyAttached,
    NotAttached,
    NotYourSession,
    Detached,
    Ended { how },
    NotStopped,
    NoSuchVp { vp, count },
    NothingToRun,
    NotMapped { vp, gva, why },
    NoMemory { gpa },
    MemoryOutOfReach { gpa },
    BadLength { address, len },
    BadBreakpoint { address, len },
    TooManyBreakpoints { limit },
    NoFreeSlot { slots },
    GuestUsesSlots { slots, guest, yours },
    NotExecutable { address },
    NoSuchBreakpoint { address },
    BadCondition { address, problem },
    BadRegister { name, reason },
    Unsupported(what),
    Overdue { call, seconds },
    MachineFailed { call, how },
    NoThread { call, error },
    VpThreadEnded { vp },
    HeldByVmm { vp },
    NoDeviceAccess { gpa },
    Hypervisor { call, error },
    RunnerBug(bug),
    BadMessage(why),
});

union!(BadMessage, bad_message {
    Malformed,
    UnknownField { message, field },
    UnknownValue { of, value },
    Missing { of },
    OutOfRange { of },
    TooMany { limit },
    TooLong { len, limit },
    TooManyPending,
    WrongAnswer,
    Duplicate { of },
    BadId { id },
});

union!(RunnerBug, runner_bug {
    IllegalInput { input, phase },
    NotStarted,
});

union!(BadRegisterReason, bad_register_reason {
    OtherArchitecture,
    Absent,
    NoValue,
    ReservedBits { value, reserved },
    BitIsAlwaysOne { bit },
    BitRequires { bit, requires },
    TooWide { bits },
    NotCanonical { address, bits },
    ReservedAttributes { reserved },
    LimitNotInPages,
    LimitTooLarge,
    UnknownMsr,
    MsrRefused { value },
    Xcr0Refused { value },
    SystemRefused,
});

union!(Unsupported, unsupported {
    Host(capability),
    NotProbed(kind),
    ClockRateSet,
    ClockRateUnknown,
    ClocksOfVmm,
    ResetOfVmm,
    NotStarted { vp },
    Request { request },
});

union!(MachineCall, machine_call {
    Read { address, len },
    Write { address, len },
    Reset,
    InitVp { vp },
});

union!(MachineFailure, machine_failure {
    Returned(text),
    Panicked,
});

union!(HypervisorCall, hypervisor_call {
    ReadCpuid,
    ReadRegisters,
    WriteRegisters,
    ReadVectorRegisters,
    WriteVectorRegisters,
    ReadDebugRegisters,
    WriteDebugRegisters,
    SetDebugState,
    ReadMsr { index },
    WriteMsr { index },
    ReadEvents,
    HoldInterrupts,
    DropException,
    SkipInstruction,
    RaiseNmi,
    ReadRunState,
    ReadLocalApic,
    WriteLocalApic,
    SetBackCounter,
});
