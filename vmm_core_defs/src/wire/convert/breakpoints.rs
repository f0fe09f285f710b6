//! Breakpoints and the features of the host.

use super::Field;
use super::Value;
use super::enumeration;
use super::field_is_value;
use super::message;
use super::missing;
use super::proto;
use super::required;
use super::union;
use crate::breakpoint::Arming;
use crate::breakpoint::Breakpoint;
use crate::breakpoint::BreakpointChange;
use crate::breakpoint::BreakpointHits;
use crate::breakpoint::BreakpointKind;
use crate::breakpoint::BreakpointStatus;
use crate::breakpoint::Pending;
use crate::capability::Capabilities;
use crate::capability::Capability;
use crate::capability::CapabilityKind;
use crate::capability::Support;
use crate::condition::BreakpointConditions;
use crate::condition::Condition;
use crate::debug_rpc::BadMessage;

message! {
    Breakpoint { kind, address, len }
    BreakpointStatus { breakpoint, arming }
    BreakpointHits { breakpoint, hits, evaluations, passes }
    BreakpointConditions { breakpoint, conditions, commands }
    Capability { kind, support, seen }
}

enumeration!(BreakpointKind {
    Software,
    Execute,
    Write,
    Read,
    ReadWrite,
    Trace,
});

union!(BreakpointChange, breakpoint_change {
    Insert(breakpoint),
    Remove(breakpoint),
});

union!(Arming, arming {
    Memory { gpa },
    DebugRegister { number, why },
    Pending { why },
});

union!(Pending, pending {
    Unmapped(reason),
    TooHigh,
    NoRam,
    NotTrapped,
    NotExecutable,
    UserOnly,
    Reset,
    Overwritten,
    GuestHasRegisters,
    Conditional,
});

enumeration!(CapabilityKind {
    SoftwareBreakpointsInRealMode,
    SoftwareBreakpoints,
    ExecutionBreakpoints,
    DataWatchpoints,
    SingleStep,
    UserMode,
    InterruptsHeld,
    RegisterAccessReported,
    ResumeFlag,
    RegistersWithExit,
    FrozenTime,
});

enumeration!(Support {
    Works,
    Replaced,
    NotOffered,
    NoEffect,
    ClockScaled,
});

impl Field for Capabilities {
    type Wire = Vec<proto::Capability>;

    fn into_field(self) -> Self::Wire {
        self.iter().cloned().map(Value::into_wire).collect()
    }

    fn from_field(wire: Self::Wire, _: &str) -> Result<Self, BadMessage> {
        wire.into_iter().map(Capability::from_wire).collect()
    }
}

impl Value for Condition {
    type Wire = proto::Condition;

    fn into_wire(self) -> proto::Condition {
        let code = self.code.into();
        proto::Condition { code }
    }

    fn from_wire(wire: proto::Condition) -> Result<Self, BadMessage> {
        let code = wire.code.into();
        Ok(Self { code })
    }
}

impl Value for Vec<BreakpointChange> {
    type Wire = proto::BreakpointChanges;

    fn into_wire(self) -> proto::BreakpointChanges {
        let changes = self.into_field();
        proto::BreakpointChanges { changes }
    }

    fn from_wire(wire: proto::BreakpointChanges) -> Result<Self, BadMessage> {
        Field::from_field(wire.changes, "changes")
    }
}

impl Value for Vec<BreakpointStatus> {
    type Wire = proto::BreakpointList;

    fn into_wire(self) -> proto::BreakpointList {
        let breakpoints = self.into_field();
        proto::BreakpointList { breakpoints }
    }

    fn from_wire(wire: proto::BreakpointList) -> Result<Self, BadMessage> {
        Field::from_field(wire.breakpoints, "breakpoints")
    }
}

impl Value for Vec<BreakpointHits> {
    type Wire = proto::BreakpointHitsList;

    fn into_wire(self) -> proto::BreakpointHitsList {
        let breakpoints = self.into_field();
        proto::BreakpointHitsList { breakpoints }
    }

    fn from_wire(wire: proto::BreakpointHitsList) -> Result<Self, BadMessage> {
        Field::from_field(wire.breakpoints, "breakpoints")
    }
}
