//! A vCPU that executes the guest of `world`. The hook sees no difference to a vCPU of KVM.

use super::world::CODE;
use super::world::World;
use crate::arch::x86_64::debug_registers::GuestRegisters;
use crate::arch::x86_64::dr7;
use crate::arch::x86_64::dr7::DebugPayload;
use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::dr7::SLOTS;
use crate::arch::x86_64::emulate::Outcome;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::registers::CpuRegisters;
use crate::arch::x86_64::step_effects::TrapFlag;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::arch::x86_64::stop_cause::SingleStepping;
use crate::arch::x86_64::vp::debug_state::DebugState;
use crate::arch::x86_64::vp::debug_state::Undelivered;
use crate::arch::x86_64::vp::vcpu::Vcpu;
use crate::arch::x86_64::vp::vcpu::VcpuClocks;
use crate::control::enter::Int3Exits;
use crate::control::exit::Exit;
use crate::kvm::RegisterFile;
use crate::kvm::exit_decode::Exits;
use crate::kvm::hooked_vcpu::HookedVcpu;
use crate::kvm::immediate_exit;
use crate::kvm::immediate_exit::BoundFlag;
use crate::machine::Machine;
use crate::machine::MachineError;
use crate::machine::device_access::DeviceAccess;
use crate::sync::a_signal_may_arrive;
use crate::sync::thread;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::bits::rflags;

const INT3: u8 = 0xcc;
const NOP: u8 = 0x90;
const OUT: u8 = 0xe6;
const JMP: u8 = 0xeb;
const SINGLE_STEP: u64 = 1 << 14;
const DR6: u64 = 0xffff_0ff0;

/// The VMM's handle of the vCPU, which makes the `KVM_RUN`.
#[derive(Clone)]
pub(super) struct SharedVcpu(Arc<Mutex<State>>, &'static AtomicU8);

/// The hook's handle of the vCPU.
pub(super) struct HookVcpu {
    vcpu: SharedVcpu,
    last_read: CpuRegisters,
}

struct State {
    world: Arc<World>,
    vp: VpIndex,
    flag: &'static AtomicU8,
    registers: CpuRegisters,
    debug: Option<DebugState>,
    /// The `out` of the last exit, until KVM has completed it.
    pending: Option<u64>,
    exit: Exit,
}

impl SharedVcpu {
    /// In 32-bit protected mode without paging, ring 0.
    pub(super) fn new(world: &Arc<World>, vp: VpIndex) -> Self {
        let mut system = kvm_sregs {
            cr0: 0x11,
            ..Default::default()
        };
        for segment in [&mut system.cs, &mut system.ss] {
            segment.db = 1;
            segment.limit = u32::MAX;
            segment.present = 1;
        }
        let general = kvm_regs {
            rip: CODE,
            rflags: 2,
            rsp: 0x3000,
            ..Default::default()
        };
        let flag: &'static AtomicU8 = Box::leak(Box::default());
        let state = State {
            world: world.clone(),
            vp,
            flag,
            registers: CpuRegisters { general, system },
            debug: None,
            pending: None,
            exit: Exit::Nothing,
        };
        Self(Arc::new(Mutex::new(state)), flag)
    }

    /// A call from another thread would wait until a `KVM_RUN` ends, so there is none meanwhile.
    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.try_lock();
        state.expect("a call from one thread while another runs the vCPU")
    }

    /// `kvm_run.immediate_exit`.
    pub(super) fn flag(&self) -> &'static AtomicU8 {
        self.1
    }

    /// `KVM_RUN`.
    pub(super) fn run(&self) -> Result<(), i32> {
        self.state().run()
    }

    /// Whether the last exit was an access to a device.
    pub(super) fn has_device_exit(&self) -> bool {
        self.state().exit == Exit::Device
    }

    /// The VMM moves the vCPU to this address.
    pub(super) fn move_to(&self, rip: u64) {
        let mut vcpu = self.state();
        vcpu.registers.general.rip = rip;
        let (world, vp) = (vcpu.world.clone(), vcpu.vp);
        drop(vcpu);
        world.change(vp, |record| record.moves += 1);
    }

    /// RIP, if the vCPU is not in a `KVM_RUN`.
    pub(super) fn rip(&self) -> Option<u64> {
        let vcpu = self.0.try_lock().ok()?;
        Some(vcpu.registers.general.rip)
    }

    /// The part that the hook uses, on the thread of the vCPU.
    pub(super) fn for_hook(&self) -> HookVcpu {
        let last_read = self.state().registers;
        let vcpu = self.clone();
        HookVcpu { vcpu, last_read }
    }
}

impl State {
    fn run(&mut self) -> Result<(), i32> {
        super::say(|| format!("VP {} runs: {:?}", self.vp, self.debug));
        if let Some(next) = self.pending.take() {
            self.registers.general.rip = next;
        }
        loop {
            thread::yield_now();
            a_signal_may_arrive();
            if self.flag.load(Ordering::Relaxed) != 0 {
                super::say(|| format!("VP {} leaves the guest for its flag", self.vp));
                return Err(libc::EINTR);
            }
            if let Some(exit) = self.instruction() {
                super::say(|| format!("VP {} leaves the guest: {exit:?}", self.vp));
                self.exit = exit;
                return Ok(());
            }
        }
    }

    /// Executes one instruction of the guest, or returns the exit that comes before the instruction or with it.
    fn instruction(&mut self) -> Option<Exit> {
        let rip = self.registers.general.rip;
        let here = self.slots_at(rip);
        if here != 0 && self.registers.general.rflags & rflags::RF == 0 {
            return Some(debug_exit(1, rip, here));
        }
        let byte = self.world.byte(rip);
        if byte == INT3 {
            let debug = self.debug.expect("an INT3 before any debug state");
            assert_eq!(
                debug.int3_exits,
                Int3Exits::On,
                "VP {} executes a byte of ours at {rip:#x}",
                self.vp
            );
            return Some(debug_exit(3, rip, 0));
        }
        self.world.executes(self.vp);
        let general = &mut self.registers.general;
        general.rflags &= !rflags::RF;
        match byte {
            NOP => general.rip += 1,
            JMP => {
                let by = i64::from(self.world.byte(rip + 1).cast_signed());
                general.rip = (rip + 2).wrapping_add_signed(by);
            }
            OUT => {
                self.pending = Some(rip + 2);
                return Some(Exit::Device);
            }
            other => panic!("{other:#x} is no instruction of this guest"),
        }
        let stepping = self.debug.map(|debug| debug.stepping);
        let rip = self.registers.general.rip;
        (stepping == Some(SingleStepping::On)).then(|| debug_exit(1, rip, SINGLE_STEP))
    }

    fn slots_at(&self, rip: u64) -> u64 {
        let programmed = self.debug.and_then(|debug| debug.registers.programmed());
        let slots = programmed.map(|(db, dr7)| dr7::decode(&db, dr7));
        let slots = slots.into_iter().flatten().enumerate();
        let here = slots.filter(|(_, slot)| slot.is_some_and(|slot| slot.address().value() == rip));
        here.fold(0, |hits, (index, _)| hits | 1 << index)
    }
}

fn debug_exit(vector: u32, pc: u64, dr6: u64) -> Exit {
    let dr6 = Dr6(DR6 | dr6);
    Exit::Debug(DebugExit { vector, pc, dr6 })
}

fn unheard_of() -> DebugError {
    let request = "this vCPU has no such register".into();
    Unsupported::Request { request }.into()
}

impl HookedVcpu for HookVcpu {
    fn find_register_file(&mut self) -> Result<RegisterFile, DebugError> {
        Err(unheard_of())
    }

    fn set_register_file(&mut self, _: RegisterFile) {}

    fn power_on(&mut self, _: VpIndex, _: &dyn Machine) -> Result<(), MachineError> {
        Ok(())
    }

    fn run(&mut self) -> Result<(), i32> {
        self.vcpu.run()
    }

    fn enters(&mut self) {}

    fn left(&mut self, result: Result<(), i32>, _: Exits) -> Exit {
        match result {
            Ok(()) => self.vcpu.state().exit,
            Err(_) => Exit::Interrupted,
        }
    }

    fn may_be_stop(&mut self) -> bool {
        matches!(self.vcpu.state().exit, Exit::Debug(_))
    }

    fn vmm_had_vcpu(&mut self) {}

    fn is_complete(&mut self) -> bool {
        self.vcpu.state().exit != Exit::Device
    }

    fn bind(&self) -> io::Result<BoundFlag> {
        Ok(BoundFlag::of_test(self.vcpu.flag()))
    }

    fn device_access(&mut self) -> Option<DeviceAccess<'_>> {
        let data = &[0];
        let size = 1;
        let port = 0x80;
        let exit = self.vcpu.state().exit;
        (exit == Exit::Device).then_some(DeviceAccess::PioWrite { port, size, data })
    }
}

impl Vcpu for HookVcpu {
    fn set_immediate_exit(&mut self, on: bool) {
        if on {
            immediate_exit::set();
        }
    }

    fn want_registers(&mut self, _: bool) {}

    fn program(&mut self, state: DebugState) -> Result<(), DebugError> {
        let mut vcpu = self.vcpu.state();
        vcpu.debug = Some(state);
        let programmed = state.registers.programmed();
        let (world, vp) = (vcpu.world.clone(), vcpu.vp);
        drop(vcpu);
        world.change(vp, |record| {
            record.slots = programmed.map_or([None; SLOTS], |(db, dr7)| dr7::decode(&db, dr7));
            record.steps = state.stepping == SingleStepping::On;
        });
        Ok(())
    }

    fn kept_trap_flag(&mut self) {}

    fn set_own_trap_flag(&mut self, _: TrapFlag) {}

    fn guest_debug_registers(&mut self) -> Result<GuestRegisters, DebugError> {
        Ok(GuestRegisters {
            db: [0; SLOTS],
            dr7: 0x400,
        })
    }

    fn holds_interrupts(&self) -> bool {
        true
    }

    fn undelivered(&mut self) -> Result<Option<Undelivered>, DebugError> {
        Ok(None)
    }

    fn deliverable(&mut self) -> Result<Option<u8>, DebugError> {
        Ok(None)
    }

    fn inject_debug(&mut self, _: DebugState, _: DebugPayload) -> Result<(), DebugError> {
        panic!("this guest has no breakpoint of its own")
    }

    fn inject_breakpoint(&mut self, _: DebugState) -> Result<(), DebugError> {
        panic!("this guest has no INT3 of its own")
    }

    fn drop_exception(&mut self) -> Result<(), DebugError> {
        Ok(())
    }

    fn drop_soft_exception(&mut self) -> Result<(), DebugError> {
        Ok(())
    }

    fn has_interrupt_shadow(&mut self) -> Result<bool, DebugError> {
        Ok(false)
    }

    fn raise_nmi(&mut self) -> Result<(), DebugError> {
        Ok(())
    }

    fn registers(&mut self) -> Result<&CpuRegisters, DebugError> {
        let vcpu = self.vcpu.state();
        assert!(
            vcpu.pending.is_none(),
            "registers of a device access that is not complete (I2)"
        );
        self.last_read = vcpu.registers;
        drop(vcpu);
        Ok(&self.last_read)
    }

    fn write_general(&mut self, general: &kvm_regs) -> Result<(), DebugError> {
        self.vcpu.state().registers.general = *general;
        Ok(())
    }

    fn skip_to(&mut self, rip: u64) -> Result<(), DebugError> {
        self.vcpu.state().registers.general.rip = rip;
        Ok(())
    }

    fn write_outcome(&mut self, outcome: &Outcome) -> Result<(), DebugError> {
        let general = &mut self.vcpu.state().registers.general;
        (general.rip, general.rflags) = (outcome.rip, outcome.rflags);
        Ok(())
    }

    fn paging_limits(&self) -> Result<PagingLimits, DebugError> {
        Ok(super::paging_limits())
    }

    fn read_state(&mut self) -> Result<X86VpState, DebugError> {
        Ok(self.registers()?.state())
    }

    fn write_state(&mut self, _: &X86VpState, _: &X86VpState) -> Result<(), DebugError> {
        Err(unheard_of())
    }

    fn activity(&mut self) -> Result<VpActivity, DebugError> {
        Ok(VpActivity::Stopped)
    }

    fn halt_at(&mut self, _: u64) -> Result<bool, DebugError> {
        panic!("this guest does not halt")
    }
}

impl VcpuClocks for HookVcpu {
    fn read_msr(&mut self, _: u32) -> Result<u64, DebugError> {
        Ok(0)
    }

    fn write_clock_msr(&mut self, _: u32, _: u64) -> Result<(), DebugError> {
        Ok(())
    }

    fn write_msr(&mut self, _: u32, _: u64) -> Result<(), DebugError> {
        let vcpu = self.vcpu.state();
        let is_with_vmm = vcpu.world.record(vcpu.vp).is_with_vmm;
        assert!(!is_with_vmm, "a change of a vCPU that the VMM has");
        Ok(())
    }

    fn tsc_offset(&mut self) -> Option<u64> {
        None
    }

    fn put_back_tsc(&mut self, _: u64) -> Result<(), DebugError> {
        Ok(())
    }

    fn local_apic(&mut self) -> Option<kvm_lapic_state> {
        None
    }

    fn change_local_apic(
        &mut self,
        _: impl FnOnce(&mut kvm_lapic_state),
    ) -> Result<(), DebugError> {
        Ok(())
    }

    fn tell_of_pause(&mut self) -> bool {
        false
    }
}
