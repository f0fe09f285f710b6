//! Compares the emulation of an instruction with its execution by a real vCPU: random instructions of the supported set, random registers, every mode.

use super::*;
use crate::kvm::x86_64::RegisterFile;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::apply_general;
use crate::kvm::x86_64::kvm_for_test;
use crate::kvm::x86_64::read_general;
use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuExit;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest::test_runner::TestCaseError;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::cell::RefCell;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vmm_core_defs::regs::x86_64::bits::rflags;

const RAM: usize = 0x1000;
const CODE: u64 = 0x800;
const HLT: u8 = 0xf4;
/// The number of cases in each mode. `PROPTEST_CASES` sets a higher number.
const CASES: u32 = 500;
/// The part of RAM below the code for stacks. The page table is below this part.
const STACK: std::ops::Range<u64> = 0x20..0x7f0;

#[derive(Debug, Clone)]
struct Case {
    bytes: Vec<u8>,
    gp: [u64; 16],
    status: u64,
    rsp: u64,
}

/// An instruction of the supported set, or a similar one, which is not compared. `random` selects the operands.
fn instruction(long: bool) -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![
        Just(vec![0x90]),
        Just(vec![0x0f, 0x1f]),
        Just(vec![0xf3, 0x0f, 0x1e, 0xfa]),
        Just(vec![0xf3, 0x0f, 0x1e, 0xfb]),
        (0x50..0x58_u8).prop_map(|op| vec![op]),
        (0x88..0x8c_u8, 0xc0..=0xff_u8).prop_map(|(op, modrm)| vec![op, modrm]),
        // add, or, (adc, sbb,) and, sub, xor, cmp of two registers and with the accumulator.
        (0..8_u8, 0..6_u8, 0xc0..=0xff_u8)
            .prop_map(|(which, form, modrm)| vec![which << 3 | form, modrm]),
        (0..8_u8, 0..6_u8, 0xc0..=0xff_u8)
            .prop_map(|(which, form, modrm)| vec![which << 3 | form, modrm]),
        // test of two registers and with the accumulator; mov of an immediate operand.
        (
            prop_oneof![
                Just(0x84_u8),
                Just(0x85),
                Just(0xa8),
                Just(0xa9),
                0xb0..0xc0_u8
            ],
            0xc0..=0xff_u8
        )
            .prop_map(|(op, modrm)| vec![op, modrm]),
        // test, (not,) and mov with an immediate operand.
        (
            prop_oneof![Just(0xf6_u8), Just(0xf7), Just(0xc6), Just(0xc7)],
            0..3_u8,
            0..8_u8
        )
            .prop_map(|(op, which, rm)| vec![op, 0xc0 | which << 3 | rm]),
        // movzx, movsx, movsxd.
        (
            prop_oneof![Just(0xb6_u8), Just(0xb7), Just(0xbe), Just(0xbf)],
            0xc0..=0xff_u8
        )
            .prop_map(|(op, modrm)| vec![0x0f, op, modrm]),
        (0xc0..=0xff_u8).prop_map(|modrm| vec![0x63, modrm]),
        (0..0xc0_u8).prop_map(|modrm| vec![0x8d, modrm]),
        (0..0xc0_u8).prop_map(|modrm| vec![0x8d, modrm]),
        // The eight operations with an immediate operand: to any register, to the stack pointer.
        (
            prop_oneof![Just(0x80), Just(0x81), Just(0x82), Just(0x83)],
            0..8_u8,
            prop_oneof![0..8_u8, Just(4)]
        )
            .prop_map(|(op, which, rm): (u8, u8, u8)| vec![op, 0xc0 | which << 3 | rm]),
    ];
    let prefixes = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::option::of(0x40..0x50_u8),
    );
    (opcode, prefixes, any::<[u8; 8]>()).prop_map(move |(opcode, prefixes, random)| {
        let (operand_size, address_size, rex) = prefixes;
        let mut bytes = Vec::new();
        // A mandatory F3 precedes REX, and 66 is not part of `endbr`.
        let (mandatory, rest) = match opcode[0] {
            0xf3 => opcode.split_at(1),
            _ => opcode.split_at(0),
        };
        if operand_size && mandatory.is_empty() {
            bytes.push(0x66);
        }
        if address_size {
            bytes.push(0x67);
        }
        bytes.extend(mandatory);
        bytes.extend(rex.filter(|_| long));
        bytes.extend(rest);
        bytes.extend(random);
        bytes
    })
}

fn case(long: bool) -> impl Strategy<Value = Case> {
    let value = prop_oneof![
        any::<u64>(),
        0..0x100_u64,
        prop::sample::select(vec![
            0,
            0x7f,
            0x80,
            0x7fff,
            0x8000,
            0x7fff_ffff,
            0x8000_0000,
            i64::MAX as u64,
            1 << 63,
            u64::MAX
        ]),
    ];
    (
        instruction(long),
        proptest::array::uniform16(value),
        any::<u64>(),
        STACK.start + 8..STACK.end - 0x110,
    )
        .prop_map(move |(bytes, mut gp, flags, rsp)| {
            if !long {
                // Outside 64-bit mode the registers have no upper halves.
                gp = gp.map(|value| value & 0xffff_ffff);
            }
            // DF and the six status flags.
            let status = flags & (arithmetic::STATUS_FLAGS | 1 << 10);
            Case {
                bytes,
                gp,
                status,
                rsp,
            }
        })
}

/// The reason why an instruction was not compared.
#[derive(Debug, Default)]
struct Seen {
    compared: Cell<u32>,
    unsupported: Cell<u32>,
    /// The host's KVM gave up: it emulates the guest, and does not support the instruction.
    host_refused: Cell<u32>,
}

fn count(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

fn agrees(
    scratch: &mut ScratchVm,
    file: &RegisterFile,
    sregs: &kvm_sregs,
    case: &Case,
    seen: &Seen,
) -> Result<(), TestCaseError> {
    scratch.vcpu().set_sregs(sregs).unwrap();
    let old = file.read(scratch.vcpu()).unwrap();
    let mut before = old.clone();
    before.gp = case.gp;
    let big_stack = before.ss.attributes & segment_attributes::DEFAULT_BIG != 0;
    let rsp = &mut before.gp[Gp::Rsp as usize];
    *rsp = match big_stack || cpu_mode(&old) == CpuMode::Long64 {
        true => case.rsp,
        // Only SP counts.
        false => *rsp & !0xffff | case.rsp,
    };
    before.rip = CODE;
    before.rflags = 2 | case.status;

    let Ok(expected) = emulate(&before, &case.bytes, InterruptShadow::None) else {
        count(&seen.unsupported);
        return Ok(());
    };
    let len = usize::try_from(expected.rip - CODE).unwrap();
    let mut code = case.bytes[..len].to_vec();
    code.push(HLT);
    scratch.load(&code, CODE).unwrap();
    let mut regs = scratch.vcpu().get_regs().unwrap();
    apply_general(&mut regs, &old, &before);
    (regs.rip, regs.rflags) = (before.rip, before.rflags);
    scratch.vcpu().set_regs(&regs).unwrap();
    let mut memory = vec![0; RAM];
    let whole = GuestAddress(0);
    scratch.ram().read_slice(&mut memory, whole).unwrap();
    match scratch.vcpu_mut().run() {
        Ok(VcpuExit::Hlt) => {}
        Ok(VcpuExit::InternalError) => {
            count(&seen.host_refused);
            return Ok(());
        }
        other => {
            return Err(TestCaseError::fail(format!(
                "{:x?} ended with {other:?}",
                &code
            )));
        }
    }
    count(&seen.compared);
    let mut after = before.clone();
    read_general(&scratch.vcpu().get_regs().unwrap(), &mut after);
    let what = format!("{:x?} in {:?}", &code[..len], cpu_mode(&before));
    prop_assert_eq!(
        after.gp.map(Hex),
        expected.gp.map(Hex),
        "registers: {}",
        what
    );
    prop_assert_eq!(after.rip, expected.rip + 1, "RIP: {}", what);
    // KVM decides whether RFLAGS shows RF after an exit for `hlt`.
    prop_assert_eq!(
        Hex(after.rflags & !rflags::RF),
        Hex(expected.rflags),
        "flags: {}",
        what
    );
    if let Some(store) = expected.store {
        let at = usize::try_from(store.gva.value()).unwrap();
        memory[at..at + store.bytes().len()].copy_from_slice(store.bytes());
    }
    let mut now = vec![0; RAM];
    scratch.ram().read_slice(&mut now, whole).unwrap();
    // The processor sets the accessed bit of the page-table entry at 0.
    prop_assert!(now[8..] == memory[8..], "memory: {}", what);
    Ok(())
}

#[derive(PartialEq, Eq)]
struct Hex(u64);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Compares thousands of instructions in one mode, with each size of the stack that the mode has.
fn compare(start: StartIn, mode: CpuMode, change: impl Fn(&mut kvm_sregs)) {
    let Some(kvm) = kvm_for_test() else { return };
    let scratch = ScratchVm::new(&kvm, RAM).unwrap();
    scratch.start(start, CODE, 0x700).unwrap();
    let file = RegisterFile::new(scratch.vm(), scratch.vcpu()).unwrap();
    let mut sregs = scratch.vcpu().get_sregs().unwrap();
    change(&mut sregs);
    scratch.vcpu().set_sregs(&sregs).unwrap();
    assert_eq!(cpu_mode(&file.read(scratch.vcpu()).unwrap()), mode);
    let scratch = RefCell::new(scratch);
    let seen = Seen::default();
    let defaults = Config::default();
    let cases = defaults.cases.max(CASES);
    let mut runner = TestRunner::new(Config {
        cases,
        // Cases are small, and a failure prints its own case. proptest would write its file to a folder where it looks for no test.
        failure_persistence: None,
        ..defaults
    });
    let result = runner.run(&case(mode == CpuMode::Long64), |case| {
        agrees(&mut scratch.borrow_mut(), &file, &sregs, &case, &seen)
    });
    eprintln!("{mode:?}: {seen:?}");
    result.unwrap_or_else(|err| panic!("{err}"));
    assert!(
        seen.compared.get() > cases / 2,
        "too few were compared to say anything: {seen:?}"
    );
}

fn stack_of(base: u64, big: u8) -> impl Fn(&mut kvm_sregs) {
    move |sregs| {
        sregs.ss.base = base;
        sregs.ss.db = big;
    }
}

#[test]
fn agrees_with_the_processor_in_real_mode() {
    compare(StartIn::Real, CpuMode::Real, stack_of(0x100, 0));
}

#[test]
fn agrees_with_the_processor_in_16_bit_protected_mode() {
    for (base, big) in [(0x100, 0), (0, 1)] {
        compare(StartIn::Protected32, CpuMode::Protected16, |sregs| {
            sregs.cs.db = 0;
            stack_of(base, big)(sregs);
        });
    }
}

#[test]
fn agrees_with_the_processor_in_32_bit_protected_mode() {
    for (base, big) in [(0, 1), (0x100, 0)] {
        compare(
            StartIn::Protected32,
            CpuMode::Protected32,
            stack_of(base, big),
        );
    }
}

#[test]
fn agrees_with_the_processor_in_compatibility_mode() {
    for (mode, db) in [(CpuMode::Compatibility16, 0), (CpuMode::Compatibility32, 1)] {
        compare(StartIn::Long, mode, |sregs| {
            sregs.cs.l = 0;
            sregs.cs.db = db;
            stack_of(0x100, db)(sregs);
        });
    }
}

#[test]
fn agrees_with_the_processor_in_64_bit_mode() {
    // A base that the mode ignores.
    compare(StartIn::Long, CpuMode::Long64, stack_of(0x100, 0));
}
