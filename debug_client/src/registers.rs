//! Registers by their names.

use crate::error::Error;
use vmm_core_defs::regs::Aarch64VpState;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;

/// A register of at most 64 bits.
enum Slot<'a> {
    U64(&'a mut u64),
    U32(&'a mut u32),
    U16(&'a mut u16),
}

/// The other registers of x86.
const X86_OTHERS: [&str; 29] = [
    "rip",
    "rflags",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "cr8",
    "efer",
    "apic_base",
    "kernel_gs_base",
    "fs_base",
    "gs_base",
    "cs",
    "ss",
    "ds",
    "es",
    "fs",
    "gs",
    "tr",
    "ldtr",
    "dr0",
    "dr1",
    "dr2",
    "dr3",
    "dr6",
    "dr7",
    "mxcsr",
    "pkru",
    "xcr0",
];

/// The registers of arm64 beside X0 to X30.
const ARM64_OTHERS: [&str; 7] = [
    "sp_el0",
    "sp_el1",
    "pc",
    "cpsr",
    "sctlr_el1",
    "tcr_el1",
    "ttbr0_el1",
];

/// The value of a register.
pub(crate) fn get(state: &mut DebuggerVpState, name: &str) -> Result<u64, Error> {
    match slot(state, name) {
        Some(Slot::U64(value)) => Ok(*value),
        Some(Slot::U32(value)) => Ok((*value).into()),
        Some(Slot::U16(value)) => Ok((*value).into()),
        None => Err(no_such(state, name)),
    }
}

/// Changes a register.
pub(crate) fn set(state: &mut DebuggerVpState, name: &str, value: u64) -> Result<(), Error> {
    let too_small = |_| Error::RegisterTooSmall {
        name: name.to_owned(),
        value,
    };
    match slot(state, name) {
        Some(Slot::U64(register)) => *register = value,
        Some(Slot::U32(register)) => *register = value.try_into().map_err(too_small)?,
        Some(Slot::U16(register)) => *register = value.try_into().map_err(too_small)?,
        None => return Err(no_such(state, name)),
    }
    Ok(())
}

fn no_such(state: &DebuggerVpState, name: &str) -> Error {
    let known = match state {
        DebuggerVpState::X86_64(_) => [&Gp::NAMES[..], &X86_OTHERS].concat().join(", "),
        DebuggerVpState::Aarch64(_) => format!("x0 to x30, {}", ARM64_OTHERS.join(", ")),
    };
    let name = name.to_owned();
    Error::NoSuchRegister { name, known }
}

fn slot<'a>(state: &'a mut DebuggerVpState, name: &str) -> Option<Slot<'a>> {
    match state {
        DebuggerVpState::X86_64(state) => x86_slot(state, name),
        DebuggerVpState::Aarch64(state) => arm64_slot(state, name),
    }
}

fn x86_slot<'a>(state: &'a mut X86VpState, name: &str) -> Option<Slot<'a>> {
    if let Some(number) = Gp::NAMES.iter().position(|known| *known == name) {
        return Some(Slot::U64(&mut state.gp[number]));
    }
    Some(match name {
        "rip" => Slot::U64(&mut state.rip),
        "rflags" => Slot::U64(&mut state.rflags),
        "cr0" => Slot::U64(&mut state.cr0),
        "cr2" => Slot::U64(&mut state.cr2),
        "cr3" => Slot::U64(&mut state.cr3),
        "cr4" => Slot::U64(&mut state.cr4),
        "cr8" => Slot::U64(&mut state.cr8),
        "efer" => Slot::U64(&mut state.efer),
        "apic_base" => Slot::U64(&mut state.apic_base),
        "kernel_gs_base" => Slot::U64(&mut state.kernel_gs_base),
        "fs_base" => Slot::U64(&mut state.fs.base),
        "gs_base" => Slot::U64(&mut state.gs.base),
        "cs" => Slot::U16(&mut state.cs.selector),
        "ss" => Slot::U16(&mut state.ss.selector),
        "ds" => Slot::U16(&mut state.ds.selector),
        "es" => Slot::U16(&mut state.es.selector),
        "fs" => Slot::U16(&mut state.fs.selector),
        "gs" => Slot::U16(&mut state.gs.selector),
        "tr" => Slot::U16(&mut state.tr.selector),
        "ldtr" => Slot::U16(&mut state.ldtr.selector),
        "dr0" => Slot::U64(&mut state.debug.db[0]),
        "dr1" => Slot::U64(&mut state.debug.db[1]),
        "dr2" => Slot::U64(&mut state.debug.db[2]),
        "dr3" => Slot::U64(&mut state.debug.db[3]),
        "dr6" => Slot::U64(&mut state.debug.dr6),
        "dr7" => Slot::U64(&mut state.debug.dr7),
        "mxcsr" => Slot::U32(&mut state.sse.mxcsr),
        "pkru" => Slot::U32(state.pkru.as_mut()?),
        "xcr0" => Slot::U64(state.xcr0.as_mut()?),
        _ => return None,
    })
}

fn arm64_slot<'a>(state: &'a mut Aarch64VpState, name: &str) -> Option<Slot<'a>> {
    if let Some(number) = name.strip_prefix('x') {
        let number: usize = number.parse().ok()?;
        return state.x.get_mut(number).map(Slot::U64);
    }
    Some(Slot::U64(match name {
        "sp_el0" => &mut state.sp_el0,
        "sp_el1" => &mut state.sp_el1,
        "pc" => &mut state.pc,
        "cpsr" => &mut state.cpsr,
        "sctlr_el1" => &mut state.sctlr_el1,
        "tcr_el1" => &mut state.tcr_el1,
        "ttbr0_el1" => &mut state.ttbr0_el1,
        _ => return None,
    }))
}

/// The place of an argument of a call, at the first instruction of the function.
pub(crate) enum Argument {
    Value(u64),
    /// The address of 8 bytes on the stack.
    OnStack(u64),
}

/// The argument with this number, counted from 0, of integer and pointer arguments: by the System V ABI of AMD64, section 3.2.3, and by AAPCS64, section 6.8.2.
/// `None` in code of another width.
pub(crate) fn argument(state: &DebuggerVpState, number: u32) -> Option<Argument> {
    const X86: [Gp; 6] = [Gp::Rdi, Gp::Rsi, Gp::Rdx, Gp::Rcx, Gp::R8, Gp::R9];
    let number = usize::try_from(number).ok()?;
    let on_stack = |stack: u64, behind: usize| {
        let offset = u64::try_from(behind).ok()?.checked_mul(8)?;
        stack.checked_add(offset).map(Argument::OnStack)
    };
    match state {
        DebuggerVpState::X86_64(state) if !state.is_64_bit_code() => None,
        DebuggerVpState::X86_64(state) => match X86.get(number) {
            Some(register) => Some(Argument::Value(state.gp[*register as usize])),
            // Behind the return address.
            None => on_stack(state.gp[Gp::Rsp as usize], number - X86.len() + 1),
        },
        DebuggerVpState::Aarch64(state) => match state.x.get(number) {
            Some(value) if number < 8 => Some(Argument::Value(*value)),
            // At EL1, where kernels are.
            _ => on_stack(state.sp_el1, number - 8),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::regs::x86_64::bits::efer;
    use vmm_core_defs::regs::x86_64::segment_attributes;

    fn x86() -> DebuggerVpState {
        DebuggerVpState::X86_64(X86VpState {
            pkru: Some(0),
            xcr0: Some(0),
            ..Default::default()
        })
    }

    #[test]
    fn every_register_is_read_back_as_it_was_written_and_no_two_are_the_same() {
        let arm: Vec<_> = (0..31).map(|n| format!("x{n}")).collect();
        let arm = arm.iter().map(String::as_str).chain(ARM64_OTHERS).collect();
        let x86_names = [&Gp::NAMES[..], &X86_OTHERS].concat();
        let arm64 = DebuggerVpState::Aarch64(Aarch64VpState::default());
        let all: [(_, Vec<&str>); 2] = [(x86(), x86_names), (arm64, arm)];
        for (mut state, names) in all {
            for (value, name) in (1..).zip(&names) {
                set(&mut state, name, value).expect(name);
            }
            for (value, name) in (1..).zip(&names) {
                assert_eq!(get(&mut state, name).expect(name), value, "{name}");
            }
        }
    }

    #[test]
    fn a_register_that_is_not_there_is_refused_with_the_names_of_those_that_are() {
        for name in ["eax", "x0", "", "x31"] {
            let error = get(&mut x86(), name).expect_err(name).to_string();
            assert!(error.contains("rax") && error.contains("xcr0"), "{error}");
        }
        let mut without = DebuggerVpState::X86_64(X86VpState::default());
        assert!(set(&mut without, "pkru", 1).is_err());
        let error = set(&mut x86(), "cs", 0x1_0000).expect_err("16 bits");
        assert!(error.to_string().contains("smaller"), "{error}");
    }

    #[test]
    fn the_seventh_argument_is_on_the_stack_behind_the_return_address() {
        let mut state = X86VpState::default();
        state.gp[Gp::Rsp as usize] = 0x1000;
        state.gp[Gp::R9 as usize] = 6;
        assert!(argument(&DebuggerVpState::X86_64(state.clone()), 0).is_none());
        state.efer = efer::LMA;
        state.cs.attributes = segment_attributes::LONG;
        let state = DebuggerVpState::X86_64(state);
        assert!(matches!(argument(&state, 5), Some(Argument::Value(6))));
        for (number, address) in [(6, 0x1008), (7, 0x1010)] {
            let place = argument(&state, number);
            assert!(matches!(place, Some(Argument::OnStack(at)) if at == address));
        }
    }
}
