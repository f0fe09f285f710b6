//! Tracepoints and frames.

use super::Field;
use super::Value;
use super::message;
use super::missing;
use super::proto;
use super::required;
use super::union;
use crate::addr::Gva;
use crate::debug_rpc::BadMessage;
use crate::trace::FoundFrame;
use crate::trace::FrameSearch;
use crate::trace::TraceFrame;
use crate::trace::TraceStart;
use crate::trace::TraceState;
use crate::trace::TraceStatus;
use crate::trace::TracedMemory;
use crate::trace::TracedRegister;
use crate::trace::Tracepoint;
use crate::trace::TracepointStatus;
use crate::trace::TracepointSwitch;
use crate::trace::WhichFrame;

message! {
    TraceStart { tracepoints, buffer, circular, client }
    Tracepoint { number, address, enabled, pass_count, condition, registers, expressions }
    TraceStatus { state, frames, created, used, size, circular, tracepoints, client }
    TracepointStatus { number, address, enabled, hits, bytes }
    TracepointSwitch { number, address, enabled }
    FrameSearch { from, which }
    FoundFrame { frame }
    TraceFrame { index, number, address, vp, registers, memory }
    TracedRegister { register, value }
}

union!(TraceState, trace_state {
    NotStarted,
    Running,
    Stopped,
    Disconnected,
    Full,
    PassCount { number },
    Failed { number, problem },
});

union!(WhichFrame, which_frame {
    Any,
    Tracepoint { number },
    Inside { first, last },
    Outside { first, last },
});

impl Value for TracedMemory {
    type Wire = proto::TracedMemory;

    fn into_wire(self) -> proto::TracedMemory {
        proto::TracedMemory {
            address: self.address.into_wire(),
            data: self.data.into(),
        }
    }

    fn from_wire(wire: proto::TracedMemory) -> Result<Self, BadMessage> {
        Ok(Self {
            address: Gva::from_wire(wire.address)?,
            data: wire.data.into(),
        })
    }
}
