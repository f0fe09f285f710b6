//! The target of a task switch. KVM emulates task switches, on the CPUs of both vendors, and loses the step.
//!
//! Sources: SDM volume 3, "Task Management Data Structures", "Task Switching", "16-Bit Task-State Segment (TSS)".

use super::GuestState;
use super::Landing;
use super::gate::segment;
use crate::arch::x86_64::cpu_mode::cpu_mode;
use crate::arch::x86_64::emulate::Operand;
use iced_x86::Code;
use iced_x86::Instruction;
use iced_x86::OpKind;
use iced_x86::Register;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::X86VpState;

/// Bits of EFLAGS.
const NT: u64 = 1 << 14;
const RF: u32 = 1 << 16;
const VM: u32 = 1 << 17;

/// The offsets in a TSS of the registers with which a task begins.
struct Layout {
    eip: u64,
    eflags: u64,
    cs: u64,
    ldt: u64,
    /// Of EIP and EFLAGS.
    width: usize,
}

const TSS_32: Layout = Layout {
    eip: 0x20,
    eflags: 0x24,
    cs: 0x4c,
    ldt: 0x60,
    width: 4,
};
const TSS_16: Layout = Layout {
    eip: 0x0e,
    eflags: 0x10,
    cs: 0x24,
    ldt: 0x2a,
    width: 2,
};

/// The first instruction of the task to which a far jump or call switches. `None` if it switches no task, or if the target is not known.
pub(super) fn of_far_transfer(
    state: &X86VpState,
    instruction: &Instruction,
    guest: &impl GuestState,
) -> Option<Landing> {
    let selector = match (instruction.op0_kind(), instruction.code()) {
        (OpKind::FarBranch16 | OpKind::FarBranch32, _) => instruction.far_branch_selector(),
        (OpKind::Memory, Code::Call_m1616 | Code::Jmp_m1616) => {
            let at = operand(state, instruction)?.wrapping_add(2);
            word(at, guest)?
        }
        (OpKind::Memory, Code::Call_m1632 | Code::Jmp_m1632) => {
            let at = operand(state, instruction)?.wrapping_add(4);
            word(at, guest)?
        }
        _ => return None,
    };
    entry(state, selector, guest)
}

/// The same for an `iret`. With EFLAGS.NT set it switches to the task to which the TSS links.
pub(super) fn of_interrupt_return(state: &X86VpState, guest: &impl GuestState) -> Option<Landing> {
    if state.rflags & NT == 0 || !has_tasks(state) {
        return None;
    }
    entry(state, word(state.tr.base, guest)?, guest)
}

/// The same for the selector of a TSS or of a task gate.
pub(super) fn entry(state: &X86VpState, selector: u16, guest: &impl GuestState) -> Option<Landing> {
    const PRESENT_TASK_GATE: u8 = 0x85;
    const PRESENT_TSS_32: u8 = 0x89;
    const PRESENT_TSS_16: u8 = 0x81;
    const BUSY: u8 = 2;
    if !has_tasks(state) {
        return None;
    }
    let mut found = segment(state.gdtr.base, state.ldtr.base, selector, guest)?;
    if found.kind == PRESENT_TASK_GATE {
        let [_, _, low, high, ..] = found.descriptor;
        let tss = u16::from_le_bytes([low, high]);
        found = segment(state.gdtr.base, state.ldtr.base, tss, guest)?;
    }
    let layout = match found.kind & !BUSY {
        PRESENT_TSS_32 => TSS_32,
        PRESENT_TSS_16 => TSS_16,
        _ => return None,
    };
    let at = |offset: u64| Gva::new(found.base.wrapping_add(offset) & u64::from(u32::MAX));
    let read = |offset: u64, width: usize| {
        let mut bytes = [0; 4];
        guest
            .read(at(offset), &mut bytes[..width])
            .then(|| u32::from_le_bytes(bytes))
    };
    let selector = |offset| read(offset, 2).and_then(|value| u16::try_from(value).ok());
    let eip = u64::from(read(layout.eip, layout.width)?);
    let cs = selector(layout.cs)?;
    let eflags = read(layout.eflags, layout.width)?;
    let base = if eflags & VM != 0 {
        u64::from(cs) << 4
    } else {
        let ldt = selector(layout.ldt)?;
        let ldt = segment(state.gdtr.base, 0, ldt, guest).map_or(0, |ldt| ldt.base);
        segment(state.gdtr.base, ldt, cs, guest)?.base
    };
    Some(Landing {
        first: Gva::new(base.wrapping_add(eip) & u64::from(u32::MAX)),
        resume_flag: (eflags & RF != 0).then(|| at(layout.eflags + 2)),
    })
}

/// Whether the VP can switch tasks: not in real mode or long mode, and not by an instruction in virtual-8086 mode.
fn has_tasks(state: &X86VpState) -> bool {
    matches!(cpu_mode(state), CpuMode::Protected16 | CpuMode::Protected32)
}

/// The linear address of the memory operand with the target of a far jump or call.
fn operand(state: &X86VpState, instruction: &Instruction) -> Option<u64> {
    let value = |register: Register, _, _| match register {
        Register::ES => Some(state.es.base),
        Register::CS => Some(state.cs.base),
        Register::SS => Some(state.ss.base),
        Register::DS => Some(state.ds.base),
        Register::FS => Some(state.fs.base),
        Register::GS => Some(state.gs.base),
        _ => Operand::new(register).map(|operand| operand.read(&state.gp)),
    };
    instruction.virtual_address(0, 0, value)
}

fn word(at: u64, guest: &impl GuestState) -> Option<u16> {
    let mut bytes = [0; 2];
    let at = Gva::new(at & u64::from(u32::MAX));
    guest
        .read(at, &mut bytes)
        .then(|| u16::from_le_bytes(bytes))
}
