//! Programs that power off at their end. A test compares the memory that a program leaves when it runs untouched and
//! when it is stepped.

use super::guest::*;
use super::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::probe;
use vp_runner::probe::Int3;

const RBX: usize = 3;
const RSP: usize = 4;
const RDI: usize = 7;
const R15: usize = 15;
/// The initial stack pointer.
pub const STACK: u64 = 0x7f00;
/// The address of the first handler.
pub const HANDLER: u64 = 0x2000;
/// The address of the IDT, outside real mode.
pub const IDT: u64 = 0x4000;
/// The initial value of RDI and R15, where the program stores its log.
pub const LOG: u64 = 0x6000;
/// The initial value of RBX, an address without a page.
const UNMAPPED: u64 = 0x4000_0000;

/// A program, which powers off at its end, and its configuration.
#[derive(Debug, Clone)]
pub struct Program {
    /// The subject of the test, for messages.
    pub name: &'static str,
    mode: Mode,
    /// The instructions without the power-off at the end.
    pub body: Vec<u8>,
    /// The vector and the code of each handler.
    handlers: Vec<(u8, &'static [u8])>,
    /// Additional code or data, with the addresses.
    pub more: Vec<(u64, Vec<u8>)>,
    msrs: Vec<(u32, u64)>,
    nmi: bool,
    queued: Option<u8>,
    /// Sets the initial registers.
    pub set: fn(&mut X86VpState),
}

impl Program {
    /// A program that contains only these instructions.
    pub fn new(name: &'static str, mode: Mode, body: &[u8]) -> Self {
        Self {
            name,
            mode,
            body: body.to_vec(),
            handlers: Vec::new(),
            more: Vec::new(),
            msrs: Vec::new(),
            nmi: false,
            queued: None,
            set: |_| {},
        }
    }

    /// Adds a handler for a vector. The first handler is at [`HANDLER`], and each further one 100h bytes behind the
    /// previous one.
    pub fn handler(mut self, vector: u8, code: &'static [u8]) -> Self {
        self.handlers.push((vector, code));
        self
    }

    /// Adds code or data at an address.
    pub fn more(mut self, at: u64, bytes: &[u8]) -> Self {
        self.more.push((at, bytes.to_vec()));
        self
    }

    /// Sets an MSR.
    pub fn msr(mut self, index: u32, value: u64) -> Self {
        self.msrs.push((index, value));
        self
    }

    /// An NMI is pending before the first instruction.
    pub fn nmi(mut self) -> Self {
        self.nmi = true;
        self
    }

    /// KVM injects an interrupt with this vector before the first instruction, as if a stop had interrupted its
    /// delivery.
    pub fn queued(mut self, vector: u8) -> Self {
        self.queued = Some(vector);
        self
    }

    /// Sets the initial registers.
    pub fn set(mut self, set: fn(&mut X86VpState)) -> Self {
        self.set = set;
        self
    }

    /// The address of the power-off.
    pub fn end(&self) -> u64 {
        ENTRY + self.body.len() as u64
    }

    /// The guest before its first instruction, attached. `None` if this host has no KVM.
    pub fn build(&self) -> Option<TestVm> {
        let code = [&self.body[..], &[0xe6, PORT_OFF, 0xeb, 0xfe]].concat();
        let mut setup = Setup::new(self.mode, &code);
        (setup.nmi, setup.queued) = (self.nmi, self.queued);
        let vm = setup.build()?;
        vm.attach();
        let mut regs = vm.regs(0);
        (regs.gp[RSP], regs.gp[RDI], regs.gp[R15]) = (STACK, LOG, LOG);
        regs.gp[RBX] = UNMAPPED;
        if self.mode != Mode::Real {
            (regs.idtr.base, regs.idtr.limit) = (IDT, 0xfff);
        }
        (self.set)(&mut regs);
        vm.try_set_regs(0, regs).unwrap();
        for (n, (vector, code)) in (0..).zip(&self.handlers) {
            let handler = HANDLER + 0x100 * n;
            vm.write_gva(0, handler, code).unwrap();
            let (at, gate) = self.gate(*vector, handler);
            vm.write_gva(0, at, &gate).unwrap();
        }
        for (at, bytes) in &self.more {
            vm.write_gva(0, *at, bytes).unwrap();
        }
        for (index, value) in &self.msrs {
            let write = (VpIndex::BSP, *index, *value);
            vm.call(DebugRequest::WriteMsr, write).unwrap();
        }
        Some(vm)
    }

    fn gate(&self, vector: u8, handler: u64) -> (u64, Vec<u8>) {
        let vector = u64::from(vector);
        let [low, high, ..] = handler.to_le_bytes();
        match self.mode {
            Mode::Real => (vector * 4, vec![low, high, 0, 0]),
            Mode::Protected => (IDT + vector * 8, vec![low, high, 24, 0, 0, 0x8e, 0, 0]),
            Mode::Long => {
                let gate = [low, high, 8, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                (IDT + vector * 16, gate.to_vec())
            }
        }
    }

    /// The memory that the program leaves when it runs untouched. `None`, with the reason printed, if this host's KVM
    /// cannot run the program.
    pub fn untouched(&self) -> Option<Vec<u8>> {
        let vm = self.build()?;
        match stop(vm.resume()) {
            DebugStopReason::PowerOff { .. } => Some(vm.machine.raw_memory()),
            other => {
                println!("SKIP {}: this host's KVM ends it with {other:?}", self.name);
                None
            }
        }
    }

    /// Steps to the end. Returns RIP after each step.
    pub fn step_through(&self, vm: &TestVm) -> Vec<u64> {
        let mut trail = Vec::new();
        while vm.regs(0).rip != self.end() {
            vm.step(0);
            trail.push(vm.regs(0).rip);
            assert!(trail.len() < 500, "{}: {trail:x?}", self.name);
        }
        trail
    }

    /// Runs to the end by range steps: one step until RIP leaves the body for a handler, and the next until RIP is in
    /// the body again.
    fn range_through(&self, vm: &TestVm) {
        let end = Gva::new(self.end());
        let mut stops = 0;
        while vm.regs(0).rip != end.value() {
            let (start, end) = match vm.regs(0).rip < end.value() {
                true => (Gva::new(0), end),
                false => (Gva::new(self.end() + 1), Gva::new(u64::MAX)),
            };
            let reason = stop(vm.only(0, VpAction::StepRange { start, end }));
            let vp = VpIndex::BSP;
            assert_eq!(reason, DebugStopReason::SingleStep { vp }, "{}", self.name);
            stops += 1;
            assert!(stops < 100, "{}", self.name);
        }
    }

    /// Runs the program to its end, and compares the memory that it leaves.
    #[track_caller]
    pub fn finish(&self, vm: &TestVm, expected: &[u8]) {
        assert_eq!(
            stop(vm.resume()),
            DebugStopReason::PowerOff {
                vp: Some(VpIndex::BSP)
            },
            "{}",
            self.name
        );
        self.compare(&vm.machine.raw_memory(), expected);
    }

    /// Compares the memory with the expected memory.
    #[track_caller]
    pub fn compare(&self, found: &[u8], expected: &[u8]) {
        let differs = found.iter().zip(expected).position(|(a, b)| a != b);
        let Some(at) = differs else { return };
        let start = at & !15;
        let end = start + 64;
        panic!(
            "{}: from {start:#x} on {:x?}, expected {:x?}",
            self.name,
            &found[start..end],
            &expected[start..end]
        );
    }

    /// Breakpoints of this kind at the handlers of the program's own exceptions.
    fn at_handlers(&self, kind: BreakpointKind) -> Vec<Breakpoint> {
        let handlers = (0..).zip(&self.handlers);
        let breakpoint = |(n, _): (u64, _)| Breakpoint {
            kind,
            ..execute_at(HANDLER + 0x100 * n)
        };
        handlers.map(breakpoint).collect()
    }

    /// Steps to the end, or (`Run`) runs from breakpoint to breakpoint, with breakpoints at the handlers, which are gone
    /// at the end. Returns RIP after each stop.
    fn through_breakpoints(&self, vm: &TestVm, kind: BreakpointKind, by: VpAction) -> Vec<u64> {
        let handlers = self.at_handlers(kind);
        // A handler may return to the end with RFLAGS.RF set, which lets the VP pass a breakpoint on a debug register.
        let end = software::software_at(self.end());
        let wanted = handlers.iter().chain((by == VpAction::Run).then_some(&end));
        let wanted: Vec<_> = wanted.copied().collect();
        wanted.iter().for_each(|wanted| vm.insert(*wanted));
        let vp = VpIndex::BSP;
        let mut trail = Vec::new();
        while vm.regs(0).rip != self.end() {
            let reason = stop(vm.only(0, by));
            let rip = vm.regs(0).rip;
            let here = wanted.iter().find(|wanted| wanted.address == Gva::new(rip));
            let met = here.map(|breakpoint| DebugStopReason::Breakpoint {
                vp,
                breakpoint: *breakpoint,
            });
            let stepped = DebugStopReason::SingleStep { vp };
            let expected = by != VpAction::Run && reason == stepped || Some(reason) == met;
            assert!(expected, "{} {kind:?} {by:?}: {reason:?}", self.name);
            trail.push(rip);
            assert!(trail.len() < 500, "{}: {trail:x?}", self.name);
        }
        wanted.iter().for_each(|wanted| vm.remove(*wanted));
        trail
    }

    /// A breakpoint at a handler is met where the handler begins, and the handler finds no trap flag in its frame.
    #[track_caller]
    fn check_with_breakpoints(&self, path: &[u64], expected: &[u8]) {
        // The handler of an interrupt runs within a step, and its breakpoint is met there.
        if self.nmi || self.queued.is_some() {
            return;
        }
        for kind in [BreakpointKind::Execute, BreakpointKind::Software] {
            let handlers = self.at_handlers(kind);
            let is_handler = |rip: &u64| {
                let address = Gva::new(*rip);
                handlers.iter().any(|handler| handler.address == address)
            };
            let stops = path.iter().filter(|rip| is_handler(rip));
            let stops: Vec<_> = stops.copied().chain([self.end()]).collect();
            for (by, path) in [(VpAction::Step, path), (VpAction::Run, &stops)] {
                let vm = self.build().unwrap();
                let trail = self.through_breakpoints(&vm, kind, by);
                let name = self.name;
                assert!(
                    follows(&trail, path),
                    "{name} {kind:?} {by:?}: {trail:x?}, not {path:x?}"
                );
                self.finish(&vm, expected);
            }
        }
    }

    /// Steps through the whole program, one instruction after the other along `path`, and compares the memory. Then
    /// does the same by range steps, and with breakpoints at the handlers.
    #[track_caller]
    pub fn check(&self, path: &[u64]) {
        let Some(expected) = self.untouched() else {
            return;
        };
        let vm = self.build().unwrap();
        let trail = self.step_through(&vm);
        assert!(
            follows(&trail, path),
            "{}: {trail:x?}, not {path:x?}",
            self.name
        );
        self.finish(&vm, &expected);
        let vm = self.build().unwrap();
        self.range_through(&vm);
        self.finish(&vm, &expected);
        self.check_with_breakpoints(path, &expected);
    }
}

/// Whether this host's KVM runs guest code in its instruction emulator. There a step over `iretq` also executes the
/// next instruction, and a step over `sysret` never ends.
pub fn emulates() -> bool {
    probe::run().unwrap().int3_long == Int3::InternalError
}

/// Whether a trail is the path. On a host that emulates, single instructions may be missing.
pub fn follows(trail: &[u64], path: &[u64]) -> bool {
    let mut rest = path;
    trail == path
        || emulates()
            && trail
                .iter()
                .all(|rip| match rest.iter().take(2).position(|at| at == rip) {
                    Some(n) => {
                        rest = &rest[n + 1..];
                        true
                    }
                    None => false,
                })
}

/// The addresses of consecutive instructions with these lengths.
pub fn run(start: u64, lengths: &[u64]) -> Vec<u64> {
    let ends = lengths.iter().scan(start, |at, len| {
        let here = *at;
        *at += len;
        Some(here)
    });
    ends.collect()
}
