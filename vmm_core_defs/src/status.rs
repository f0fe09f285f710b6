//! What each VP is doing.

use crate::addr::VpIndex;
use serde::Deserialize;
use serde::Serialize;

/// The activity of the guest, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VmStatus {
    /// The status of each VP, in the order of their indexes.
    pub vps: Vec<VpStatus>,
}

impl VmStatus {
    /// The status of all VPs, in the order of their indexes.
    pub const fn new(vps: Vec<VpStatus>) -> Self {
        Self { vps }
    }

    /// The status of one VP, if the VM has this VP.
    pub fn of(&self, vp: VpIndex) -> Option<&VpStatus> {
        self.vps.iter().find(|status| status.vp == vp)
    }
}

/// The activity, mode and privilege level of one VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VpStatus {
    /// The VP.
    pub vp: VpIndex,
    /// Whether the VP runs guest code.
    pub activity: VpActivity,
    /// The processor mode of a parked VP. `None` for a running VP, whose mode cannot be read.
    pub mode: Option<CpuMode>,
    /// The current privilege level of a parked VP: 0 (kernel) to 3 (user).
    pub privilege: Option<u8>,
    /// The VMM has the thread of the VP, for instance because the VMM has paused the guest. The VP does not enter the guest before the VMM continues it.
    pub held_by_vmm: bool,
}

impl VpStatus {
    /// The status of a VP whose mode and privilege level cannot be read, because it runs.
    pub const fn new(vp: VpIndex, activity: VpActivity) -> Self {
        Self {
            vp,
            activity,
            mode: None,
            privilege: None,
            held_by_vmm: false,
        }
    }

    /// The same status of a parked VP with its mode and its privilege level.
    #[must_use]
    pub const fn in_mode(self, mode: CpuMode, privilege: u8) -> Self {
        Self {
            mode: Some(mode),
            privilege: Some(privilege),
            ..self
        }
    }
}

/// Whether a VP runs guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VpActivity {
    /// The VP is in the guest or about to enter.
    Running,
    /// The debugger has parked the VP.
    Stopped,
    /// The debugger has parked the VP while the VP was waiting for an interrupt (`hlt`).
    Halted,
    /// The guest has not started the VP: the VP waits for its start-up message (INIT-SIPI on x86).
    WaitingForStart,
}

/// The mode in which a VP decodes instructions (SDM volume 3, "Modes of Operation").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuMode {
    /// Real mode: CR0.PE is clear.
    Real,
    /// Virtual-8086 mode: EFLAGS.VM is set.
    Virtual8086,
    /// Protected mode, 16-bit code segment.
    Protected16,
    /// Protected mode, 32-bit code segment.
    Protected32,
    /// Long mode, 16-bit code segment.
    Compatibility16,
    /// Long mode, 32-bit code segment.
    Compatibility32,
    /// Long mode, 64-bit code segment.
    Long64,
    /// 64-bit Arm.
    Aarch64,
}
