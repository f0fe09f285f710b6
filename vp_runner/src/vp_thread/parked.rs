//! What the controller may ask of a parked VP, on the VP's thread (I3).

use super::*;

/// Something to be done with a parked VP.
pub(crate) type Call = Box<dyn FnOnce(&mut dyn ParkedVp) + Send>;

/// A VP in user space, its last exit completed (I2).
pub(crate) trait ParkedVp {
    /// Puts the VP into its power-on state.
    fn init(&mut self) -> Result<(), MachineError>;

    /// Makes this what stops the VP, with no step under way (I5, I6).
    fn set_arms(&mut self, arms: Arms) -> Result<(), DebugError>;

    /// The session is over: the next debugger is told where the VP stands, whatever it was about to meet under this one.
    fn debugger_gone(&mut self);

    /// Where the VP stands.
    fn place(&mut self) -> Result<Place, DebugError>;

    /// How many debug registers the guest uses on this VP.
    fn count_guest_registers(&mut self) -> Result<usize, DebugError>;

    /// Asks what registers a VP of this VM has.
    fn find_registers(&mut self, vm: &VmFd) -> Result<RegisterFile, DebugError>;

    /// Sets how registers are read and written.
    fn set_register_file(&mut self, registers: RegisterFile);

    /// Every register, from the snapshot where one was taken since the VP parked.
    fn read_registers(&mut self) -> Result<Arc<X86VpState>, DebugError>;

    /// Writes what differs from the present state. A VP that had crashed is taken as repaired and tries again.
    fn write_registers(&mut self, new: &X86VpState) -> Result<(), DebugError>;

    /// Reads an MSR.
    fn read_msr(&mut self, msr: u32) -> Result<u64, DebugError>;

    /// Writes an MSR.
    fn write_msr(&mut self, msr: u32, value: u64) -> Result<(), DebugError>;

    /// Whether the parked VP had work to do.
    fn activity(&mut self) -> Result<VpActivity, DebugError>;

    /// Writes back what the VP's local timer had left when a long stop began, where it counts. Before any VP enters: an interrupt that comes meanwhile
    /// would be lost.
    fn restart_counter(&mut self) -> Result<(), DebugError> {
        Ok(())
    }
}
