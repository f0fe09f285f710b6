//! The messages between the controller and the hook of a VP.

use super::Call;
use super::link::VpLink;
use crate::arch::PagingLimits;
use crate::arch::Snapshots;
use crate::control::enter::Enter;
use crate::control::enter::VpParked;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use std::sync::Arc;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::regs::XFeatures;

/// A command of the controller to a VP.
pub(crate) enum Command {
    /// Run the guest. The VP answers with one [`VpParked`].
    Enter(Enter),
    /// Call this with the parked VP, also while the VMM has the thread.
    Call(Call),
    /// Call this with the parked VP, whose registers it changes. Refused while the VMM has the thread, because the VMM may write registers of its own after it.
    Change(Call),
    /// The controller has ended. The VP runs without a debugger from now on, and a thread of this crate ends.
    Exit,
}

/// An event of a VP for the controller. One channel has them all, because their order counts.
pub(crate) enum VpEvent {
    /// The answer to [`Command::Enter`].
    Parked(VpParked),
    /// The thread ends by a panic in the VMM's code.
    Died(VpIndex),
    /// A vCPU has registered.
    Joined(VpIndex, NewVp),
    /// A vCPU has gone. Its VP is not in the guest.
    Left(VpIndex),
    /// The VMM had the thread of this parked VP and has changed the VP's RIP.
    MovedByVmm(VpIndex),
    /// A device of the VMM has caused this event, which the VMM holds back. The gate is that of the VP that accessed the device, if one did. Its VP parks after this message.
    Device(GuestEvent, Option<Arc<RunGate>>),
}

/// A VP that has just registered, as the controller sees it.
pub(crate) struct NewVp {
    pub(crate) gate: Arc<RunGate>,
    pub(crate) link: Box<dyn VpLink>,
    pub(crate) snapshot: Snapshots,
    /// Which optional register sets the VPs of this VM have.
    pub(crate) xfeatures: XFeatures,
    /// What the CPUID of these VPs says about paging.
    pub(crate) paging_limits: PagingLimits,
}
