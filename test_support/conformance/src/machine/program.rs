//! Programs that switch themselves off at their end: run untouched, and stepped through, what they leave in memory is compared.

use super::guest::*;
use super::*;
use vmm_core_defs::addr::Gva;
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
/// Where its stack begins.
pub const STACK: u64 = 0x7f00;
/// Where its first handler is.
pub const HANDLER: u64 = 0x2000;
/// Where its gates are, outside real mode.
pub const IDT: u64 = 0x4000;
/// Where RDI and R15 point at its start, for it to note things.
pub const LOG: u64 = 0x6000;
/// Where RBX points at its start: no page is there.
const UNMAPPED: u64 = 0x4000_0000;

/// A program, which switches itself off at its end, and how it is set up.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it is about, for messages.
    pub name: &'static str,
    mode: Mode,
    /// Its instructions but for the last.
    pub body: Vec<u8>,
    /// By vector.
    handlers: Vec<(u8, &'static [u8])>,
    /// More code or data, and where.
    pub more: Vec<(u64, Vec<u8>)>,
    msrs: Vec<(u32, u64)>,
    nmi: bool,
    queued: Option<u8>,
    /// What its registers are at its start.
    pub set: fn(&mut X86VpState),
}

impl Program {
    /// Nothing but these instructions.
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

    /// With the handler of a vector. The first is at [`HANDLER`], each of the others 100h bytes on.
    pub fn handler(mut self, vector: u8, code: &'static [u8]) -> Self {
        self.handlers.push((vector, code));
        self
    }

    /// With code or data somewhere.
    pub fn more(mut self, at: u64, bytes: &[u8]) -> Self {
        self.more.push((at, bytes.to_vec()));
        self
    }

    /// With an MSR written.
    pub fn msr(mut self, index: u32, value: u64) -> Self {
        self.msrs.push((index, value));
        self
    }

    /// With an NMI that waits before its first instruction.
    pub fn nmi(mut self) -> Self {
        self.nmi = true;
        self
    }

    /// With an interrupt of this vector that KVM is to inject before its first instruction, as one whose delivery a stop has cut short.
    pub fn queued(mut self, vector: u8) -> Self {
        self.queued = Some(vector);
        self
    }

    /// With other registers.
    pub fn set(mut self, set: fn(&mut X86VpState)) -> Self {
        self.set = set;
        self
    }

    /// Where it switches itself off.
    pub fn end(&self) -> u64 {
        ENTRY + self.body.len() as u64
    }

    /// The guest before its first instruction, attached. `None` where this host has no KVM.
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

    /// The memory it leaves by itself. `None`, with the reason printed, where this host's KVM cannot carry it out.
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

    /// Steps until its end. Where it stood after each.
    pub fn step_through(&self, vm: &TestVm) -> Vec<u64> {
        let mut trail = Vec::new();
        while vm.regs(0).rip != self.end() {
            vm.step(0);
            trail.push(vm.regs(0).rip);
            assert!(trail.len() < 500, "{}: {trail:x?}", self.name);
        }
        trail
    }

    /// Goes to its end by range steps: one until the body is left for a handler, the next until it is back there.
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

    /// Lets it run to its end, and compares the memory it leaves.
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

    /// Compares its memory with what it is to be.
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

    /// Steps through all of it, one instruction after the other along `path`, and compares; then again by range steps.
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
    }
}

/// Whether this host's KVM runs guest code in its instruction emulator, where a step over `iretq` takes the next instruction along, and one over
/// `sysret` never ends.
pub fn emulates() -> bool {
    probe::run().unwrap().int3_long == Int3::InternalError
}

/// Whether a trail is the path; where the host emulates, with single instructions missing.
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

/// The addresses of instructions of these lengths, one after the other.
pub fn run(start: u64, lengths: &[u64]) -> Vec<u64> {
    let ends = lengths.iter().scan(start, |at, len| {
        let here = *at;
        *at += len;
        Some(here)
    });
    ends.collect()
}
