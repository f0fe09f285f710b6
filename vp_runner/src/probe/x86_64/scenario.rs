//! The scenarios: each sets up the vCPU, runs it, and checks the result.

mod user_mode;

use super::super::Finding;
use super::super::Int3;
use super::super::ProbeError;
use super::super::Report;
use super::programs;
use super::seen::Seen;
use crate::arch::x86_64::dr7;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::dr7::Slot;
use crate::kvm::vcpu::SHADOW_STI;
use crate::kvm::vcpu::features::offers_block_irq;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::ScratchVmError;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::clocks;
use crate::kvm::x86_64::clocks::BothClocks;
use crate::kvm::x86_64::clocks::TscOffsets;
use kvm_bindings::KVM_GUESTDBG_BLOCKIRQ;
use kvm_bindings::KVM_GUESTDBG_ENABLE;
use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;
use kvm_bindings::KVM_GUESTDBG_USE_HW_BP;
use kvm_bindings::KVM_GUESTDBG_USE_SW_BP;
use kvm_bindings::KVM_VCPUEVENT_VALID_SHADOW;
use kvm_bindings::kvm_guest_debug;
use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use kvm_ioctls::SyncReg;
use kvm_ioctls::VcpuExit;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::regs::x86_64::bits::rflags;

pub(in crate::probe) const PAGE: usize = 0x1000;

/// How a pending interrupt is blocked during steps.
#[derive(Debug, Clone, Copy)]
enum Hold {
    /// `KVM_GUESTDBG_BLOCKIRQ`.
    BlockIrq,
    /// An interrupt shadow before each step, as after `sti`.
    Shadow,
}

/// Counts the scenarios, and detects that the present scenario has exceeded its time limit.
pub(in crate::probe) struct ScenarioRunner {
    begin: mpsc::Sender<u32>,
    overdue: Arc<AtomicU32>,
    number: Cell<u32>,
}

impl ScenarioRunner {
    /// The number of each scenario is sent to `begin`. The scenario whose number is in `overdue` has to end.
    pub(in crate::probe) fn new(begin: mpsc::Sender<u32>, overdue: Arc<AtomicU32>) -> Self {
        Self {
            begin,
            overdue,
            number: Cell::new(0),
        }
    }

    fn begin(&self) {
        self.number.set(self.number.get() + 1);
        // If the receiver is dropped, no kick will come. The program ends all the same.
        let _ = self.begin.send(self.number.get());
    }

    fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed) == self.number.get()
    }
}

/// Runs every scenario. Returns the VMs, so that the caller can drop them later.
pub(in crate::probe) fn all(
    kvm: &Kvm,
    bench: &ScenarioRunner,
) -> Result<(Report, [ScratchVm; 2]), ProbeError> {
    let mut plain = Guest::new(ScratchVm::new(kvm, PAGE)?, bench);
    let mut with_irqchip = Guest::new(ScratchVm::with_irqchip(kvm, PAGE)?, bench);
    let both = [StartIn::Real, StartIn::Long];
    let report = Report {
        int3_real: plain.int3(StartIn::Real)?,
        int3_protected: plain.int3(StartIn::Protected32)?,
        int3_long: plain.int3(StartIn::Long)?,
        execution_breakpoints: first_failure(both, |mode| plain.execution_breakpoint(mode))?,
        data_watchpoints: first_failure(both, |mode| plain.data_watchpoint(mode))?,
        single_step: first_failure(both, |mode| plain.single_step(mode))?,
        resume_flag: first_failure(both, |mode| plain.resume_flag(mode))?,
        sync_regs: plain.sync_regs()?,
        register_access: plain.register_access()?,
        user_mode: plain.user_mode()?,
        interrupts_held: with_irqchip.interrupts_held(Hold::BlockIrq)?,
        shadow_holds: with_irqchip.interrupts_held(Hold::Shadow)?,
        frozen_time: with_irqchip.frozen_time(),
    };
    Ok((report, [plain.scratch, with_irqchip.scratch]))
}

/// Works only if it works in every mode. The observation is that of the first mode that failed, or of the last mode.
fn first_failure(
    modes: [StartIn; 2],
    mut scenario: impl FnMut(StartIn) -> Result<Finding, ScratchVmError>,
) -> Result<Finding, ScratchVmError> {
    let [first, second] = modes;
    let finding = scenario(first)?;
    if finding.works {
        scenario(second)
    } else {
        Ok(finding)
    }
}

pub(in crate::probe) struct Guest<'a> {
    scratch: ScratchVm,
    bench: &'a ScenarioRunner,
}

impl<'a> Guest<'a> {
    pub(in crate::probe) fn new(scratch: ScratchVm, bench: &'a ScenarioRunner) -> Self {
        Self { scratch, bench }
    }

    pub(in crate::probe) fn start(
        &mut self,
        mode: StartIn,
        program: &[u8],
    ) -> Result<(), ScratchVmError> {
        self.bench.begin();
        let vector = u32::from(programs::HANDLER).to_le_bytes();
        self.scratch.load(&vector.repeat(256), 0)?;
        self.scratch
            .load(&programs::HANDLER_PROGRAM, programs::HANDLER.into())?;
        self.scratch.load(program, programs::CODE.into())?;
        self.scratch
            .start(mode, programs::CODE.into(), programs::STACK.into())
    }

    fn debug(&self, control: u32, slot: Option<Slot>) -> Result<(), Seen> {
        self.debug_with(control, slot, 0)
    }

    /// With these additional bits in DR7.
    fn debug_with(&self, control: u32, slot: Option<Slot>, dr7: u64) -> Result<(), Seen> {
        let mut debug = kvm_guest_debug {
            control,
            ..Default::default()
        };
        if let Some(slot) = slot {
            debug.arch.debugreg[0] = slot.address().value();
            debug.arch.debugreg[7] = dr7 | dr7::encode(&[Some(slot), None, None, None]);
        }
        self.scratch
            .vcpu()
            .set_guest_debug(&debug)
            .map_err(Seen::refused)
    }

    /// Runs with a debug state until an exit.
    pub(in crate::probe) fn run(&mut self, control: u32, slot: Option<Slot>) -> Seen {
        match self.debug(control, slot) {
            Ok(()) => self.enter(),
            Err(seen) => seen,
        }
    }

    fn enter(&mut self) -> Seen {
        loop {
            let seen = match self.scratch.vcpu_mut().run() {
                Ok(VcpuExit::Debug(debug)) => {
                    return Seen::Debug {
                        vector: debug.exception,
                        pc: debug.pc,
                        dr6: debug.dr6,
                    };
                }
                Ok(VcpuExit::IoOut(port, _)) if port == u16::from(programs::END_PORT) => {
                    Seen::Ended
                }
                Ok(VcpuExit::IoOut(port, _)) if port == u16::from(programs::HANDLER_PORT) => {
                    Seen::Handler
                }
                Ok(VcpuExit::Shutdown) => return Seen::TripleFault,
                Ok(VcpuExit::InternalError) => {
                    return match self.scratch.vcpu().get_regs() {
                        Ok(regs) => Seen::InternalError { rip: regs.rip },
                        Err(err) => Seen::refused(err),
                    };
                }
                Err(err) if err.errno() == libc::EINTR || err.errno() == libc::EAGAIN => {
                    if self.bench.is_overdue() {
                        return Seen::Overdue;
                    }
                    continue;
                }
                Ok(_) => return Seen::Other,
                Err(err) => return Seen::refused(err),
            };
            self.complete();
            return seen;
        }
    }

    /// Completes an I/O exit without entering the guest (api.rst, `immediate_exit`), so that the registers are valid and can be set.
    fn complete(&mut self) {
        let vcpu = self.scratch.vcpu_mut();
        vcpu.set_kvm_immediate_exit(1);
        let ended = vcpu.run().is_err();
        vcpu.set_kvm_immediate_exit(0);
        if !ended {
            tracing::warn!("KVM entered the guest in spite of immediate_exit");
        }
    }

    fn int3(&mut self, mode: StartIn) -> Result<Int3, ScratchVmError> {
        self.start(mode, &programs::INT3)?;
        Ok(self.run_int3())
    }

    /// Runs [`programs::INT3`], at whose start the vCPU is.
    fn run_int3(&mut self) -> Int3 {
        let here = u64::from(programs::CODE + programs::INT3_AT);
        let seen = self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, None);
        match seen {
            Seen::Debug { vector: 3, pc, .. } if pc == here => Int3::DebugExit,
            Seen::InternalError { rip } if rip == here => Int3::InternalError,
            other => Int3::NotTrapped(other),
        }
    }

    fn single_step(&mut self, mode: StartIn) -> Result<Finding, ScratchVmError> {
        self.start(mode, &programs::NOPS)?;
        Ok(self.step_twice())
    }

    /// Steps in [`programs::NOPS`], at whose start the vCPU is.
    fn step_twice(&mut self) -> Finding {
        let mut seen = Seen::Other;
        for step in 1..=2 {
            seen = self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, None);
            if !seen.is_db_at(programs::CODE + step, Dr6::single_step) {
                return Finding { works: false, seen };
            }
        }
        Finding { works: true, seen }
    }

    fn execution_breakpoint(&mut self, mode: StartIn) -> Result<Finding, ScratchVmError> {
        self.start(mode, &programs::NOPS)?;
        Ok(self.run_to_breakpoint())
    }

    /// Runs [`programs::NOPS`], at whose start the vCPU is.
    fn run_to_breakpoint(&mut self) -> Finding {
        let slot = slot(BreakpointKind::Execute, programs::CODE + 2);
        let seen = self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, Some(slot));
        Finding {
            works: seen.is_db_at(programs::CODE + 2, is_slot_0),
            seen,
        }
    }

    fn resume_flag(&mut self, mode: StartIn) -> Result<Finding, ScratchVmError> {
        let hit = self.execution_breakpoint(mode)?;
        if !hit.works {
            return Ok(hit);
        }
        let seen = self.resume_with_rf();
        Ok(Finding {
            works: seen == Seen::Ended,
            seen,
        })
    }

    fn resume_with_rf(&mut self) -> Seen {
        let vcpu = self.scratch.vcpu();
        let set = vcpu.get_regs().and_then(|mut regs| {
            regs.rflags |= rflags::RF;
            vcpu.set_regs(&regs)
        });
        match set {
            Ok(()) => self.enter(),
            Err(err) => Seen::refused(err),
        }
    }

    fn data_watchpoint(&mut self, mode: StartIn) -> Result<Finding, ScratchVmError> {
        let mut seen = Seen::Other;
        for (kind, write) in [
            (BreakpointKind::Write, true),
            (BreakpointKind::ReadWrite, false),
        ] {
            let program = programs::access(mode, write);
            self.start(mode, &program)?;
            // The code after the access: `nop; out imm8, al`.
            let after = u16::try_from(program.len() - 3).expect("a program of a few bytes");
            let slot = slot(kind, programs::DATA);
            seen = self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, Some(slot));
            if !seen.is_db_at(programs::CODE + after, is_slot_0) {
                return Ok(Finding { works: false, seen });
            }
        }
        Ok(Finding { works: true, seen })
    }

    fn interrupts_held(&mut self, hold: Hold) -> Result<Finding, ScratchVmError> {
        if matches!(hold, Hold::BlockIrq) && !offers_block_irq(self.scratch.vm()) {
            let seen = Seen::NotOffered;
            return Ok(Finding { works: false, seen });
        }
        self.start(StartIn::Real, &programs::INTERRUPTIBLE)?;
        let seen = self.run(0, None);
        if seen != Seen::Ended {
            return Ok(Finding { works: false, seen });
        }
        // Lowers and raises the line, so that there is an edge in any case.
        let vm = self.scratch.vm();
        let raised = vm
            .set_irq_line(programs::LINE, false)
            .and_then(|()| vm.set_irq_line(programs::LINE, true));
        if let Err(err) = raised {
            let seen = Seen::refused(err);
            return Ok(Finding { works: false, seen });
        }
        let ready = programs::CODE + programs::INTERRUPTIBLE_READY;
        for step in 1..=4 {
            let seen = self.held_step(hold);
            if !seen.is_db_at(ready + step, Dr6::single_step) {
                return Ok(Finding { works: false, seen });
            }
        }
        // The interrupt was pending: it is delivered when it is no longer blocked.
        let seen = self.run(0, None);
        Ok(Finding {
            works: seen == Seen::Handler,
            seen,
        })
    }

    fn held_step(&mut self, hold: Hold) -> Seen {
        let control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
        match hold {
            Hold::BlockIrq => self.run(control | KVM_GUESTDBG_BLOCKIRQ, None),
            Hold::Shadow => match self.debug(control, None).and_then(|()| self.cast_shadow()) {
                Ok(()) => self.enter(),
                Err(seen) => seen,
            },
        }
    }

    fn cast_shadow(&self) -> Result<(), Seen> {
        let vcpu = self.scratch.vcpu();
        let mut events = vcpu.get_vcpu_events().map_err(Seen::refused)?;
        events.interrupt.shadow |= SHADOW_STI;
        events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
        vcpu.set_vcpu_events(&events).map_err(Seen::refused)
    }

    fn register_access(&mut self) -> Result<Finding, ScratchVmError> {
        self.start(StartIn::Long, &programs::READS_DR0)?;
        // A breakpoint that is never hit. Without a breakpoint, KVM would use the guest's own registers.
        let slot = slot(BreakpointKind::Execute, programs::DATA);
        let control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        let seen = match self.debug_with(control, Some(slot), dr7::GENERAL_DETECT) {
            Ok(()) => self.enter(),
            Err(seen) => seen,
        };
        let here = programs::CODE + programs::READS_DR0_AT;
        Ok(Finding {
            works: seen.is_db_at(here, Dr6::debug_register_access),
            seen,
        })
    }

    fn sync_regs(&mut self) -> Result<Finding, ScratchVmError> {
        let finding = |works, seen| Ok(Finding { works, seen });
        let offered = self.scratch.vm().check_extension_int(Cap::SyncRegs);
        let wanted = SyncReg::Register as i32 | SyncReg::SystemRegister as i32;
        if offered & wanted != wanted {
            return finding(false, Seen::NotOffered);
        }
        self.start(StartIn::Real, &programs::NOPS)?;
        let mut regs = match self.scratch.vcpu().get_regs() {
            Ok(regs) => regs,
            Err(err) => return finding(false, Seen::refused(err)),
        };
        // A value in kvm_run has to reach the vCPU, and to be returned with the exit.
        regs.rbx = 0x5a5a;
        let vcpu = self.scratch.vcpu_mut();
        vcpu.set_sync_valid_reg(SyncReg::Register);
        vcpu.set_sync_valid_reg(SyncReg::SystemRegister);
        vcpu.sync_regs_mut().regs = regs;
        vcpu.set_sync_dirty_reg(SyncReg::Register);
        let seen = self.run(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, None);
        let vcpu = self.scratch.vcpu_mut();
        vcpu.clear_sync_valid_reg(SyncReg::Register);
        vcpu.clear_sync_valid_reg(SyncReg::SystemRegister);
        vcpu.clear_sync_dirty_reg(SyncReg::Register);
        if !seen.is_db_at(programs::CODE + 1, Dr6::single_step) {
            return finding(false, seen);
        }
        let synced = vcpu.sync_regs();
        match (vcpu.get_regs(), vcpu.get_sregs()) {
            (Ok(regs), Ok(sregs))
                if synced.regs == regs && synced.sregs == sregs && regs.rbx == 0x5a5a =>
            {
                finding(true, seen)
            }
            (Err(err), _) | (_, Err(err)) => finding(false, Seen::refused(err)),
            _ => finding(false, Seen::WrongRegisters),
        }
    }

    /// Sets both clocks back by an hour and reads them.
    fn frozen_time(&self) -> Finding {
        const HOUR_NS: u64 = 3600 * 1_000_000_000;
        const HOUR_TICKS: u64 = 1 << 43;
        let (vm, vcpu) = (self.scratch.vm(), self.scratch.vcpu());
        let finding = |works, seen| Finding { works, seen };
        match TscOffsets::of(vcpu) {
            TscOffsets::Settable => {}
            TscOffsets::Missing { errno } => return finding(false, Seen::Refused { errno }),
            TscOffsets::Scaled => return finding(false, Seen::ClockScaled),
        }
        // The counter allows any offset. kvmclock begins at 0, so it is set forward first.
        let offset = clocks::tsc_offset(vcpu).map(|offset| offset.wrapping_sub(HOUR_TICKS));
        let moved = offset
            .and_then(|offset| clocks::set_tsc_offset(vcpu, offset))
            .and_then(|()| clocks::set_kvmclock(vm, 2 * HOUR_NS))
            .and_then(|()| clocks::set_kvmclock(vm, HOUR_NS));
        if let Err(err) = moved {
            return finding(false, Seen::refused(err));
        }
        // Some KVMs accept an offset and ignore it.
        let back = clocks::tsc_offset(vcpu) == offset
            && TscOffsets::of(vcpu) == TscOffsets::Settable
            && BothClocks::look(vm)
                .is_some_and(|now| (HOUR_NS..2 * HOUR_NS).contains(&now.kvmclock));
        match back {
            true => finding(true, Seen::ClockSet),
            false => finding(false, Seen::ClockKept),
        }
    }
}

fn slot(kind: BreakpointKind, address: u16) -> Slot {
    Slot::new(&Breakpoint {
        kind,
        address: Gva::new(address.into()),
        len: 1,
    })
    .expect("one byte is always aligned")
}

fn is_slot_0(dr6: Dr6) -> bool {
    dr6.0 & 0xf == 1
}
