//! Debugging of 64-bit code in ring 3. A KVM may run such code in another way than code in ring 0.

use super::Guest;
use crate::kvm::x86_64::ScratchVmError;
use crate::kvm::x86_64::StartIn;
use crate::probe::UserMode;
use crate::probe::x86_64::programs;
use crate::probe::x86_64::seen::Seen;

const RING_3: u8 = 3;

/// RFLAGS.IOPL of 3.
const IOPL_3: u64 = 0x3000;

/// Entry 0 of every level of the page table: present, writable, for ring 3, at address 0.
const SELF_MAP: u64 = 0b111;

impl Guest<'_> {
    pub(super) fn user_mode(&mut self) -> Result<UserMode, ScratchVmError> {
        self.start_in_ring_3(&programs::NOPS)?;
        let undisturbed = self.run(0, None);
        let ring = self.ring()?;
        self.start_in_ring_3(&programs::INT3)?;
        let int3 = self.run_int3();
        self.start_in_ring_3(&programs::NOPS)?;
        let execution_breakpoints = self.run_to_breakpoint();
        self.start_in_ring_3(&programs::NOPS)?;
        let single_step = self.step_twice();
        Ok(UserMode {
            code_runs: undisturbed == Seen::Ended && ring == u16::from(RING_3),
            int3,
            execution_breakpoints,
            single_step,
        })
    }

    /// The ring in which the vCPU is.
    fn ring(&mut self) -> Result<u16, ScratchVmError> {
        let sregs = self.scratch.vcpu().get_sregs();
        let sregs = sregs.map_err(|error| ScratchVmError::Kvm {
            step: "read the ring",
            source: error.into(),
        })?;
        Ok(sregs.cs.selector & u16::from(RING_3))
    }

    /// As [`Guest::start`] in long mode, in ring 3.
    fn start_in_ring_3(&mut self, program: &[u8]) -> Result<(), ScratchVmError> {
        self.start(StartIn::Long, program)?;
        self.scratch.load(&SELF_MAP.to_le_bytes(), 0)?;
        let vcpu = self.scratch.vcpu();
        let step = "move to ring 3";
        let refused = |error: kvm_ioctls::Error| ScratchVmError::Kvm {
            step,
            source: error.into(),
        };
        let mut sregs = vcpu.get_sregs().map_err(refused)?;
        for segment in [
            &mut sregs.cs,
            &mut sregs.ss,
            &mut sregs.ds,
            &mut sregs.es,
            &mut sregs.fs,
            &mut sregs.gs,
        ] {
            segment.selector |= u16::from(RING_3);
            segment.dpl = RING_3;
        }
        vcpu.set_sregs(&sregs).map_err(refused)?;
        let mut regs = vcpu.get_regs().map_err(refused)?;
        // The program writes to a port. The TSS of a new vCPU permits this too: the zeros at its address 0 are a bitmap of permitted ports.
        regs.rflags |= IOPL_3;
        vcpu.set_regs(&regs).map_err(refused)
    }
}
