//! The messages between the controller and a VP thread.

use super::Call;
use crate::control::enter::Enter;
use crate::control::enter::VpParked;
use vmm_core_defs::addr::VpIndex;

/// A command of the controller to a VP thread.
pub(crate) enum Command {
    /// Run the guest. The thread answers with one [`VpParked`].
    Enter(Enter),
    /// Call this with the parked VP.
    Call(Call),
    /// End the thread.
    Exit,
}

/// An event that a VP thread sends to the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VpEvent {
    /// The answer to [`Command::Enter`].
    Parked(VpParked),
    /// The thread ends by a panic in the VMM's code.
    Died(VpIndex),
}
