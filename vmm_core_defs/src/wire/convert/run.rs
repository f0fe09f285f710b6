//! Sessions, run control, stops and the state of the VM.

use super::Field;
use super::Value;
use super::enumeration;
use super::field_is_value;
use super::message;
use super::missing;
use super::out_of_range;
use super::proto;
use super::required;
use super::tuple;
use super::union;
use crate::addr::VpIndex;
use crate::debug_rpc::AttachInfo;
use crate::debug_rpc::BadMessage;
use crate::debug_rpc::CpuMode;
use crate::debug_rpc::DetachAction;
use crate::debug_rpc::FreezeTime;
use crate::debug_rpc::GuestArch;
use crate::debug_rpc::ResumeRequest;
use crate::debug_rpc::StepInterrupts;
use crate::debug_rpc::VmStatus;
use crate::debug_rpc::VpAction;
use crate::debug_rpc::VpActivity;
use crate::debug_rpc::VpStatus;
use crate::regs::XFeatures;
use crate::stop::CrashCause;
use crate::stop::DebugStopReason;
use crate::stop::FaultRegisters;
use crate::stop::GuestEnd;
use crate::stop::RunnerFault;
use crate::stop::StopEvent;
use crate::stop::StopOn;

message! {
    AttachInfo { arch, xfeatures, capabilities, stop, changes_while_stopped }
    XFeatures { avx, avx512, pkru }
    ResumeRequest { others, actions }
    StopEvent { epoch, reason, vps, steps, condition_failure }
    VmStatus { vps }
    VpStatus { vp, activity, mode, privilege, held_by_vmm }
}

tuple! {
    (VpIndex, VpAction) => OneVpAction (vp, action);
}

enumeration!(DetachAction {
    Resume,
    Stay,
    Kill,
    ResumeUnlessHeld,
    KillUnlessHeld,
    ResumeUnlessCrashed,
});

enumeration!(FaultRegisters {
    Kept,
    ResetByHypervisor,
});

enumeration!(RunnerFault {
    DebugState,
    ThreadPanicked,
    ThreadGone,
});

enumeration!(StepInterrupts { Held, Taken });

enumeration!(FreezeTime { On, Off });

enumeration!(VpActivity {
    Running,
    Stopped,
    Halted,
    WaitingForStart,
});

enumeration!(CpuMode {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Compatibility16,
    Compatibility32,
    Long64,
    Aarch64,
});

union!(VpAction, vp_action {
    Stay,
    Run,
    Step,
    StepRange { start, end },
    StepN { count },
});

union!(DebugStopReason, debug_stop_reason {
    Break,
    SingleStep { vp },
    Breakpoint { vp, breakpoint },
    Watchpoint { vp, breakpoint, address },
    TripleFault { vp, registers },
    Reset { vp },
    PowerOff { vp },
    Crashed { vp, cause },
    Panic { vp },
});

union!(CrashCause, crash_cause {
    Internal { suberror },
    FailEntry { hardware_reason },
    Run { errno },
    UnknownExit { reason },
    Runner(fault),
});

union!(GuestEnd, guest_end {
    PowerOff,
    Reset,
    ResetFailed,
    TripleFault { vp, shown },
    Crashed { vp, cause, shown },
    Killed,
    Stopped,
    Released,
});

/// The names of the values differ: those of the wire have no underscore.
impl Value for GuestArch {
    type Wire = i32;

    fn into_wire(self) -> i32 {
        match self {
            Self::X86_64 => proto::GuestArch::X8664.into(),
            Self::Aarch64 => proto::GuestArch::Aarch64.into(),
        }
    }

    fn from_wire(wire: i32) -> Result<Self, BadMessage> {
        match proto::GuestArch::try_from(wire) {
            Ok(proto::GuestArch::X8664) => Ok(Self::X86_64),
            Ok(proto::GuestArch::Aarch64) => Ok(Self::Aarch64),
            Ok(proto::GuestArch::Unspecified) => Err(missing("GuestArch")),
            Err(_) => {
                let of = "GuestArch".to_owned();
                Err(BadMessage::UnknownValue { of, value: wire })
            }
        }
    }
}

field_is_value!(GuestArch);

impl Value for StopOn {
    type Wire = u32;

    fn into_wire(self) -> u32 {
        self.bits().into()
    }

    fn from_wire(wire: u32) -> Result<Self, BadMessage> {
        let bits = u8::try_from(wire).map_err(|_| out_of_range("StopOn"))?;
        let known = Self::from_bits(bits);
        match known.bits() == bits {
            true => Ok(known),
            false => Err(out_of_range("StopOn")),
        }
    }
}

/// Optional values that are whole messages.
macro_rules! optional {
    ($($rust:ident => $wire:ident { $field:ident })*) => {$(
        impl Value for Option<$rust> {
            type Wire = proto::$wire;

            fn into_wire(self) -> proto::$wire {
                let $field = self.into_field();
                proto::$wire { $field }
            }

            fn from_wire(wire: proto::$wire) -> Result<Self, BadMessage> {
                Field::from_field(wire.$field, stringify!($field))
            }
        }
    )*};
}

optional! {
    StepInterrupts => NewStepInterrupts { value }
    FreezeTime => NewFreezeTime { value }
    StopOn => NewStopOn { value }
    DebugStopReason => LastStop { reason }
}
