//! Emulates the most frequent first instructions of functions. One VP can so pass a breakpoint byte while the other VPs run and the byte stays in memory (I5,
//! I7). Pure.
//!
//! Every other instruction is [`Unsupported`]. These instructions are unsupported too if they could fault, trap or meet a pending event.
//! The tests compare the results with those of a real vCPU, in every mode.
//!
//! Measured on a busy host with two processors whose KVM emulates guest code, with breakpoint bytes of another address: a VP passes 10,000 bytes in a second by emulation,
//! and 100 to 400 with the other VPs stopped. Emulation does not slow down the other VP (`cargo run --release -p vp_runner --example step_over`). A reported
//! hit stops every VP anyway, so emulation gains nothing there.
//!
//! | instruction | unsupported because of |
//! |---|---|
//! | `endbr32`, `endbr64`, `nop` in all forms, `lea`; without memory: `mov`, `movzx`, `movsx`, `add`, `sub`, `and`, `or`, `xor`, `cmp`, `test` | |
//! | `push r` | the stack segment, non-canonical addresses, alignment checks |
//!
//! All of them are unsupported with: the trap flag set, debug registers that the guest has enabled, an interrupt shadow, CR4.CET (KVM does not return the state
//! of its indirect branch tracker), virtual-8086 mode, or a RIP that would leave its segment.

use crate::arch::x86_64::cpu_mode::ModeClass;
use crate::arch::x86_64::cpu_mode::Segment;
use crate::arch::x86_64::cpu_mode::cpu_mode;
use crate::arch::x86_64::cpu_mode::linear_address;
use crate::arch::x86_64::cpu_mode::privilege;
use crate::arch::x86_64::instruction::decode;
use arithmetic::Operation;
use arithmetic::Width;
use iced_x86::Code;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
pub(crate) use operand::Operand;
use operand::effective_address;
use thiserror::Error;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::regs::x86_64::bits::cr4;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::bits::rflags;
use vmm_core_defs::regs::x86_64::segment_attributes;

mod arithmetic;
mod operand;

/// L0-L3 and G0-G3.
const DR7_ENABLED: u64 = 0xff;

/// Whether the VP's last instruction blocks interrupts for this one (`sti`, `mov ss`, `pop ss`), by `KVM_GET_VCPU_EVENTS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InterruptShadow {
    /// Interrupts are blocked.
    Active,
    /// Interrupts are not blocked.
    None,
}

/// The registers after the instruction, and its write to memory.
///
/// The caller makes the store first, and only if the VP itself could: the page tables must let the VP write to this RAM at its privilege level, through
/// entries that are already marked accessed and dirty (the processor would mark them). If the store cannot be made, the VP has to execute the instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// General registers in encoding order.
    pub gp: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// The write to memory, if there is one.
    pub store: Option<Store>,
}

/// One write to memory. It may cross a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Store {
    /// The address of the first byte.
    pub gva: Gva,
    value: [u8; 8],
    len: usize,
}

impl Store {
    /// The value: 2, 4 or 8 bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.value[..self.len]
    }
}

/// Why an instruction has to be executed by the VP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unsupported {
    /// The instruction is not one that this module knows.
    #[error("it is not one of the instructions that can be carried out without the VP")]
    Instruction,
    /// The VP is in virtual-8086 mode.
    #[error("the mode is not supported")]
    Mode,
    /// The guest steps itself, so a trap follows.
    #[error("the guest's trap flag is set")]
    TrapFlag,
    /// An interrupt shadow is in force.
    #[error("an interrupt shadow is in force")]
    Shadow,
    /// The guest has enabled debug registers.
    #[error("the guest uses debug registers")]
    GuestDebug,
    /// CR4.CET is set.
    #[error("control-flow enforcement is on")]
    Cet,
    /// This instruction or the next one is not completely in its segment or at canonical addresses.
    #[error("RIP would leave its segment")]
    Rip,
    /// The push might fault.
    #[error("the stack might not take a push")]
    Stack,
}

/// Emulates the instruction at RIP. `bytes` are the bytes that the VP would fetch, up to 15.
///
/// # Errors
/// [`Unsupported`]: the VP has to execute the instruction.
pub(crate) fn emulate(
    state: &X86VpState,
    bytes: &[u8],
    shadow: InterruptShadow,
) -> Result<Outcome, Unsupported> {
    let mode = cpu_mode(state);
    if matches!(mode, CpuMode::Virtual8086 | CpuMode::Aarch64) {
        return Err(Unsupported::Mode);
    }
    if state.rflags & rflags::TF != 0 {
        return Err(Unsupported::TrapFlag);
    }
    if shadow == InterruptShadow::Active {
        return Err(Unsupported::Shadow);
    }
    if state.debug.dr7 & DR7_ENABLED != 0 {
        return Err(Unsupported::GuestDebug);
    }
    if state.cr4 & cr4::CET != 0 {
        return Err(Unsupported::Cet);
    }
    let instruction = decode(cpu_mode(state), state.rip, bytes).ok_or(Unsupported::Instruction)?;
    if instruction.has_lock_prefix()
        || instruction.has_rep_prefix()
        || instruction.has_repne_prefix()
    {
        return Err(Unsupported::Instruction);
    }
    let mut after = Outcome {
        gp: state.gp,
        rip: next_rip(state, mode, instruction.len())?,
        // RF is in effect for one instruction (SDM volume 3, "RF Resume flag").
        rflags: state.rflags & !rflags::RF,
        store: None,
    };
    carry_out(state, mode, &instruction, &mut after)?;
    Ok(after)
}

/// Whether [`emulate`] knows the instruction, in code of the usual size for this mode. [`emulate`] may still fail.
pub(crate) fn is_known(mode: ModeClass, bytes: &[u8]) -> bool {
    let mut state = X86VpState {
        cr0: cr0::PE,
        ..Default::default()
    };
    let data_writable = 0b0010;
    let present = 1 << 7;
    for segment in [&mut state.cs, &mut state.ss] {
        segment.limit = u32::MAX;
        segment.attributes = data_writable | present | segment_attributes::DEFAULT_BIG;
    }
    match mode {
        ModeClass::Real => state.cr0 = 0,
        ModeClass::Protected => {}
        ModeClass::Long => {
            state.efer = efer::LMA;
            state.cs.attributes |= segment_attributes::LONG;
        }
    }
    state.gp[Gp::Rsp as usize] = 0x1000;
    emulate(&state, bytes, InterruptShadow::None).is_ok()
}

fn next_rip(state: &X86VpState, mode: CpuMode, len: usize) -> Result<u64, Unsupported> {
    let next = state.rip.checked_add(len as u64).ok_or(Unsupported::Rip)?;
    let inside = match mode {
        CpuMode::Long64 => canonical(state, state.rip) && canonical(state, next),
        CpuMode::Real | CpuMode::Protected16 | CpuMode::Compatibility16 => {
            next <= 0xffff && next <= u64::from(state.cs.limit)
        }
        _ => next <= u64::from(state.cs.limit),
    };
    inside.then_some(next).ok_or(Unsupported::Rip)
}

fn canonical(state: &X86VpState, address: u64) -> bool {
    let unused = match state.cr4 & cr4::LA57 {
        0 => 16,
        _ => 7,
    };
    let extended = (address << unused).cast_signed() >> unused;
    extended.cast_unsigned() == address
}

fn carry_out(
    state: &X86VpState,
    mode: CpuMode,
    instruction: &Instruction,
    after: &mut Outcome,
) -> Result<(), Unsupported> {
    let unsupported = Unsupported::Instruction;
    let register = |operand| {
        let is_register = instruction.op_kind(operand) == OpKind::Register;
        let found = is_register.then(|| Operand::new(instruction.op_register(operand)));
        found.flatten().ok_or(unsupported)
    };
    // Every form of these instructions without memory has a general register first, and the result is as wide as that register.
    let right = || match instruction.op_kind(1) {
        OpKind::Register => Ok(register(1)?.read(&state.gp)),
        _ => instruction.try_immediate(1).map_err(|_| unsupported),
    };
    if is_in_no_manual(instruction.code()) {
        return Err(unsupported);
    }
    match instruction.mnemonic() {
        Mnemonic::Endbr32 | Mnemonic::Endbr64 | Mnemonic::Nop => {}
        Mnemonic::Push => push(state, mode, register(0)?, after)?,
        Mnemonic::Mov | Mnemonic::Movzx => {
            let value = right()?;
            register(0)?.write(&mut after.gp, value);
        }
        Mnemonic::Movsx | Mnemonic::Movsxd => {
            let value = register(1)?.read_signed(&state.gp);
            register(0)?.write(&mut after.gp, value);
        }
        Mnemonic::Lea => {
            let address = effective_address(instruction, &state.gp).ok_or(unsupported)?;
            register(0)?.write(&mut after.gp, address);
        }
        Mnemonic::Add => compute(register(0)?, arithmetic::add, right()?, after),
        Mnemonic::Sub => compute(register(0)?, arithmetic::sub, right()?, after),
        Mnemonic::And => compute(register(0)?, arithmetic::and, right()?, after),
        Mnemonic::Or => compute(register(0)?, arithmetic::or, right()?, after),
        Mnemonic::Xor => compute(register(0)?, arithmetic::xor, right()?, after),
        Mnemonic::Cmp => {
            set_flags(register(0)?, arithmetic::sub, right()?, after);
        }
        Mnemonic::Test => {
            set_flags(register(0)?, arithmetic::and, right()?, after);
        }
        _ => return Err(unsupported),
    }
    Ok(())
}

/// Second encodings of an instruction, which the SDM does not have and not every processor executes.
fn is_in_no_manual(code: Code) -> bool {
    matches!(
        code,
        Code::Test_rm8_imm8_F6r1
            | Code::Test_rm16_imm16_F7r1
            | Code::Test_rm32_imm32_F7r1
            | Code::Test_rm64_imm32_F7r1
            | Code::Add_rm8_imm8_82
            | Code::Or_rm8_imm8_82
            | Code::And_rm8_imm8_82
            | Code::Sub_rm8_imm8_82
            | Code::Xor_rm8_imm8_82
            | Code::Cmp_rm8_imm8_82
    )
}

fn compute(target: Operand, operation: Operation, right: u64, after: &mut Outcome) {
    let result = set_flags(target, operation, right, after);
    target.write(&mut after.gp, result);
}

/// Sets the status flags, and returns the result.
fn set_flags(left: Operand, operation: Operation, right: u64, after: &mut Outcome) -> u64 {
    let (result, flags) = operation(left.width(), left.read(&after.gp), right);
    after.rflags = after.rflags & !arithmetic::STATUS_FLAGS | flags;
    result
}

/// `push r` (SDM volume 2, "PUSH"). The value is the register before the push, even for RSP.
fn push(
    state: &X86VpState,
    mode: CpuMode,
    source: Operand,
    after: &mut Outcome,
) -> Result<(), Unsupported> {
    let len = source.width().bytes();
    let pointer = stack_pointer(state, mode);
    let top = pointer.read(&state.gp);
    let offset = top.checked_sub(len as u64).ok_or(Unsupported::Stack)?;
    // The address of the last byte. The sum cannot overflow, because the stack pointer was larger before the push.
    let last = top - 1;
    let gva = linear_address(state, Segment::Ss, offset);
    let fits = match mode {
        CpuMode::Long64 => canonical(state, offset) && canonical(state, last),
        _ => {
            writable_upwards(state, mode)
                && last <= u64::from(state.ss.limit)
                && gva.value() + len as u64 - 1 <= u64::from(u32::MAX)
        }
    };
    let checked =
        state.cr0 & cr0::AM != 0 && state.rflags & rflags::AC != 0 && privilege(state) == 3;
    if !fits || checked && !gva.value().is_multiple_of(len as u64) {
        return Err(Unsupported::Stack);
    }
    after.store = Some(Store {
        gva,
        value: source.read(&state.gp).to_le_bytes(),
        len,
    });
    pointer.write(&mut after.gp, offset);
    Ok(())
}

fn stack_pointer(state: &X86VpState, mode: CpuMode) -> Operand {
    let big = state.ss.attributes & segment_attributes::DEFAULT_BIG != 0;
    let width = match (mode, big) {
        (CpuMode::Long64, _) => Width::Bits64,
        (_, true) => Width::Bits32,
        (_, false) => Width::Bits16,
    };
    Operand::whole(Gp::Rsp, width)
}

/// Whether the stack segment is an ordinary one: usable, present, writable, growing upwards to its limit (SDM volume 3, "Code- and Data-Segment
/// Descriptor Types"). In real mode only the limit counts.
fn writable_upwards(state: &X86VpState, mode: CpuMode) -> bool {
    const TYPE_EXPAND_WRITE: u32 = 0b1110;
    const DATA_WRITABLE: u32 = 0b0010;
    const PRESENT: u32 = 1 << 7;
    let attributes = state.ss.attributes;
    let ordinary = attributes & TYPE_EXPAND_WRITE == DATA_WRITABLE
        && attributes & PRESENT != 0
        && attributes & segment_attributes::UNUSABLE == 0;
    ordinary || mode == CpuMode::Real
}

#[cfg(test)]
mod tests;
