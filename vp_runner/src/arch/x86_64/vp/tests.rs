//! The core of a VP on a scripted vCPU: exits and failures that no available host produces.

mod clocks;
mod conditions;
mod entries;
mod exits;
mod failures;
pub(crate) mod fake_vcpu;
mod fetch;
mod owners;
mod steps;

use super::Vp;
use super::VpContext;
use super::guest_memory::GuestMemory;
use super::guest_run::Turn;
use crate::arch::x86_64::code_location::CodeLocation;
use crate::arch::x86_64::guest_time::timekeeper::Timekeeper;
use crate::arch::x86_64::page_walk::PagingLimits;
use crate::arch::x86_64::page_walk::PagingState;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Changes;
use crate::breakpoints::GuestCode;
use crate::breakpoints::Int3Traps;
use crate::breakpoints::Walks;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::enter::Debugger;
use crate::control::enter::Enter;
use crate::control::enter::Int3Exits;
use crate::control::enter::Snapshot;
use crate::control::enter::StopSet;
use crate::control::enter::VpParked;
use crate::control::exit::Exit;
use crate::control::run_gate::RunGate;
use crate::control::run_state::Cause;
use crate::memory::slots::MemorySlots;
use fake_vcpu::FakeVcpu;
use fake_vcpu::Stay;
use std::sync::Arc;
use std::sync::RwLock;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::Epoch;

/// The address of the guest's code.
pub(crate) const CODE: u64 = 0x1000;
const STACK: u64 = 0x8000;
const IDT: u64 = 0x4000;
const NOP: u8 = 0x90;
/// A write to this port resets the machine.
const RESET_PORT: u16 = 0xcf9;
pub(crate) const VP: VpIndex = VpIndex::BSP;
/// 32-bit protected mode without paging.
pub(crate) const NO_PAGING: PagingState = PagingState {
    cr0: 0x11,
    cr3: 0,
    cr4: 0,
    efer: 0,
    limits: PagingLimits::new(40, true),
};

/// One VP with its guest, without other VPs.
struct Guest {
    vp: Vp<FakeVcpu>,
    ram: Arc<MemorySlots>,
    breakpoints: Arc<RwLock<Breakpoints>>,
    stops: StopSet,
    gate: Arc<RunGate>,
}

impl Guest {
    /// A guest whose code is `nop`s, with these breakpoints, and RIP at [`CODE`].
    fn new(breakpoints: &[(BreakpointKind, u64)]) -> Self {
        Self::with_time(breakpoints, Timekeeper::without_clocks())
    }

    fn with_time(breakpoints: &[(BreakpointKind, u64)], time: Timekeeper) -> Self {
        Self::with_paging(breakpoints, time, NO_PAGING)
    }

    /// The breakpoints are set while the VP has this paging.
    fn with_paging(
        breakpoints: &[(BreakpointKind, u64)],
        time: Timekeeper,
        paging: PagingState,
    ) -> Self {
        let (vcpu, context, stops) = parts(breakpoints, time, paging);
        Self {
            ram: context.memory.ram.clone(),
            breakpoints: context.memory.breakpoints.clone(),
            gate: context.gate.clone(),
            vp: Vp::new(vcpu, context),
            stops,
        }
    }

    fn vcpu(&mut self) -> &mut FakeVcpu {
        self.vp.vcpu()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.ram
            .backing()
            .write_slice(bytes, GuestAddress(at))
            .unwrap();
    }

    fn byte(&self, at: u64) -> u8 {
        self.ram.backing().read_obj(GuestAddress(at)).unwrap()
    }

    fn entry(&self, action: VpAction, at: AtBreakpoint) -> Enter {
        Enter {
            action,
            epoch: Epoch::default(),
            at,
            debugger: Debugger::Present,
            snapshot: Snapshot::OnDemand,
            stops: self.stops,
        }
    }

    /// Enters the guest with this script.
    fn enter(
        &mut self,
        action: VpAction,
        at: AtBreakpoint,
        script: impl IntoIterator<Item = Stay>,
    ) -> VpParked {
        self.vp.vcpu().script = script.into_iter().collect();
        let mut run = self.vp.begin(&self.entry(action, at));
        loop {
            match self.vp.before_run(&mut run) {
                Turn::Run => {
                    let exit = self.vcpu().run();
                    self.vp.after_run(exit, &mut run);
                    if exit == Exit::Device
                        && let Some(event) = self.vcpu().device_event()
                    {
                        self.vp.guest_event(event, &mut run);
                    }
                }
                // No other thread kicks the VP.
                Turn::WaitForKick => {
                    let _ = self.gate.kick();
                }
                Turn::Parked(parked) => return parked,
            }
        }
    }

    fn run(&mut self, script: impl IntoIterator<Item = Stay>) -> VpParked {
        self.enter(VpAction::Run, AtBreakpoint::NEW, script)
    }

    fn step(&mut self, script: impl IntoIterator<Item = Stay>) -> VpParked {
        self.enter(VpAction::Step, AtBreakpoint::NEW, script)
    }
}

/// The parts of a VP whose guest's code is `nop`s, with RIP at [`CODE`]. The breakpoints are set while the VP has this paging.
pub(crate) fn parts(
    breakpoints: &[(BreakpointKind, u64)],
    time: Timekeeper,
    paging: PagingState,
) -> (FakeVcpu, VpContext, StopSet) {
    let ram = MemorySlots::zeroed(&[(0, 0x1_0000)]);
    ram.backing()
        .write_slice(&[NOP; 0x100], GuestAddress(CODE))
        .unwrap();
    let ram = Arc::new(ram);
    let mut table = Breakpoints {
        table: crate::breakpoints::BreakpointTable::new(16),
        ..Breakpoints::default()
    };
    let changes: Vec<_> = breakpoints
        .iter()
        .map(|(kind, address)| BreakpointChange::Insert(breakpoint(*kind, *address)))
        .collect();
    let Breakpoints {
        table: set, bytes, ..
    } = &mut table;
    let mut code = GuestCode {
        ram: &ram,
        bytes,
        locations: &[CodeLocation {
            rip: Gva::new(CODE),
            paging,
            user: false,
        }],
        int3: Int3Traps::EVERYWHERE,
        walks: Walks::default(),
    };
    set.apply(&mut code, &changes, &mut Changes::default())
        .unwrap();
    let stops = StopSet {
        slots: set.slots(),
        int3_exits: match bytes.is_empty() {
            true => Int3Exits::Off,
            false => Int3Exits::On,
        },
        step_interrupts: StepInterrupts::default(),
    };
    let gate = Arc::new(RunGate::new());
    let vcpu = FakeVcpu::new(gate.clone(), CODE);
    let context = VpContext {
        index: VP,
        gate,
        snapshot: Arc::default(),
        memory: GuestMemory {
            ram,
            breakpoints: Arc::new(RwLock::new(table)),
        },
        time: Arc::new(time),
    };
    (vcpu, context, stops)
}

/// A hit of the breakpoint that [`breakpoint`] makes.
fn hit(kind: BreakpointKind, address: u64) -> Option<Cause> {
    let (vp, breakpoint) = (VP, breakpoint(kind, address));
    let address = breakpoint.address;
    Some(Cause::Debug(match kind.is_watchpoint() {
        true => DebugStopReason::Watchpoint {
            vp,
            breakpoint,
            address,
        },
        false => DebugStopReason::Breakpoint { vp, breakpoint },
    }))
}

fn breakpoint(kind: BreakpointKind, address: u64) -> Breakpoint {
    let address = Gva::new(address);
    let len = 1;
    Breakpoint { kind, address, len }
}

/// An error of the scripted vCPU.
fn is_scripted(err: &DebugError) -> bool {
    matches!(err, DebugError::Hypervisor { error, .. } if error.to_string().contains("script"))
}
