//! Converts between the protocol's register tables and the VM's register files.
//!
//! Each architecture has one function that finds the field of a register. Reads and writes both use it, so they cannot
//! access different fields.

mod aarch64;
mod x86_64;

use gdb_frontend::regs::Layout;
use gdb_frontend::regs::RegId;
use gdb_frontend::regs::RegNum;
use gdb_frontend::regs::RegisterBlock;
use gdb_frontend::regs::aarch64::Aarch64Reg;
use gdb_frontend::regs::x86_64::X86Reg;
use gdb_frontend::target::TargetError;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::GuestArch;
use vmm_core_defs::regs::DebuggerVpState;

use crate::error_table::bad_argument;

/// The width of the widest register: 256 bits.
const MAX_BYTES: usize = 32;

/// The field of a register, by its width in the register file. The width in the protocol's table may differ.
enum Field<'a> {
    Bits16(&'a mut u16),
    Bits32(&'a mut u32),
    Bits64(&'a mut u64),
    /// The instruction pointer. The protocol has a linear address; `rip` is an offset from `base`. Outside 64-bit code
    /// the linear address and the offset have 32 bits.
    Pc {
        rip: &'a mut u64,
        base: u64,
        mask: u64,
    },
    /// The low half of a 64-bit register. A write does not change the high half.
    Low32(&'a mut u64),
    /// One or two 128-bit parts, with the lowest part first.
    Vector(&'a mut [u128]),
}

impl Field<'_> {
    /// The value in little-endian order, padded with zeros.
    fn get(&self) -> [u8; MAX_BYTES] {
        let mut bytes = [0; MAX_BYTES];
        match self {
            Self::Bits16(value) => bytes[..2].copy_from_slice(&value.to_le_bytes()),
            Self::Bits32(value) => bytes[..4].copy_from_slice(&value.to_le_bytes()),
            Self::Bits64(value) => bytes[..8].copy_from_slice(&value.to_le_bytes()),
            Self::Pc { rip, base, mask } => {
                let linear = base.wrapping_add(**rip) & mask;
                bytes[..8].copy_from_slice(&linear.to_le_bytes());
            }
            Self::Low32(value) => bytes[..4].copy_from_slice(&value.to_le_bytes()[..4]),
            Self::Vector(pieces) => {
                for (bytes, piece) in bytes.chunks_exact_mut(16).zip(pieces.iter()) {
                    bytes.copy_from_slice(&piece.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// Writes the value. Returns false, and changes nothing, if the value does not fit the field.
    fn set(self, bytes: &[u8]) -> bool {
        let width = match &self {
            Self::Bits16(_) => 2,
            Self::Bits32(_) | Self::Low32(_) => 4,
            Self::Bits64(_) | Self::Pc { .. } => 8,
            Self::Vector(pieces) => 16 * pieces.len(),
        };
        if bytes.len() > MAX_BYTES || bytes.iter().skip(width).any(|&byte| byte != 0) {
            return false;
        }
        let mut padded = [0; MAX_BYTES];
        padded[..bytes.len()].copy_from_slice(bytes);
        match self {
            Self::Bits16(value) => *value = u16::from_le_bytes(first(&padded)),
            Self::Bits32(value) => *value = u32::from_le_bytes(first(&padded)),
            Self::Bits64(value) => *value = u64::from_le_bytes(first(&padded)),
            Self::Pc { rip, base, mask } => {
                let linear = u64::from_le_bytes(first(&padded));
                if linear & !mask != 0 {
                    return false;
                }
                *rip = linear.wrapping_sub(base) & mask;
            }
            Self::Low32(value) => {
                *value =
                    *value & !u64::from(u32::MAX) | u64::from(u32::from_le_bytes(first(&padded)));
            }
            Self::Vector(pieces) => {
                for (piece, bytes) in pieces.iter_mut().zip(padded.chunks_exact(16)) {
                    *piece = u128::from_le_bytes(first(bytes));
                }
            }
        }
        true
    }
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut result = [0; N];
    result.copy_from_slice(&bytes[..N]);
    result
}

/// The field of a register. `None` if the VP does not have the register.
fn field(state: &mut DebuggerVpState, id: RegId) -> Option<Field<'_>> {
    match (state, id) {
        (DebuggerVpState::X86_64(state), RegId::X86(reg)) => x86_64::field(state, reg),
        (DebuggerVpState::Aarch64(state), RegId::Aarch64(reg)) => aarch64::field(state, reg),
        (DebuggerVpState::X86_64(_), RegId::Aarch64(_))
        | (DebuggerVpState::Aarch64(_), RegId::X86(_)) => None,
    }
}

/// The register layout of a session with this guest.
pub(crate) fn layout(info: &AttachInfo) -> Layout {
    match info.arch {
        GuestArch::X86_64 => Layout::X86_64 {
            avx: info.xfeatures.avx,
            avx512: info.xfeatures.avx512,
            pkru: info.xfeatures.pkru,
        },
        GuestArch::Aarch64 => Layout::Aarch64,
    }
}

/// Reads all registers of the layout. A register that the VP does not have stays unavailable. The state is not changed.
pub(crate) fn read_all(layout: Layout, state: &mut DebuggerVpState) -> RegisterBlock {
    let mut block = RegisterBlock::new(layout);
    for reg in layout.table() {
        if let Some(field) = field(state, reg.id) {
            block.set(reg.num, &field.get()[..reg.bytes()]);
        }
    }
    block
}

/// Changes registers in `state`. After an error `state` is of no use.
///
/// The protocol's program counter is a linear address, and the register file has an offset in the code segment. So the
/// program counter is written after the base of the segment and the mode. If the client does not write the program
/// counter, the linear address stays, and the offset changes: the result does not depend on the order of a client's
/// writes, and a client that writes one register does not have to read the program counter again.
pub(crate) fn write_all(
    layout: Layout,
    state: &mut DebuggerVpState,
    values: &[(RegNum, Vec<u8>)],
) -> Result<(), TargetError> {
    let (before, _) = pc(state);
    let (pcs, others): (Vec<_>, Vec<_>) = values.iter().partition(|(num, _)| is_pc(layout, *num));
    for (num, value) in others {
        write(layout, state, *num, value)?;
    }
    if pcs.is_empty() {
        keep_pc(state, before);
    }
    pcs.into_iter()
        .try_for_each(|(num, value)| write(layout, state, *num, value))
}

/// Changes one register in `state`. After an error nothing has changed.
fn write(
    layout: Layout,
    state: &mut DebuggerVpState,
    num: RegNum,
    value: &[u8],
) -> Result<(), TargetError> {
    let reg = layout.reg(num).ok_or_else(|| {
        bad_argument(format!(
            "there is no register {}; `info registers` lists the registers",
            num.0
        ))
    })?;
    let field = field(state, reg.id).ok_or_else(|| {
        bad_argument(format!(
            "this processor has no {} in its present state; `monitor mode` shows the state",
            reg.name
        ))
    })?;
    match field.set(value) {
        true => Ok(()),
        false => Err(bad_argument(format!(
            "the value is too wide for {}, and nothing was changed; write a smaller value",
            reg.name
        ))),
    }
}

/// Sets the program counter to a linear address.
pub(crate) fn set_pc(state: &mut DebuggerVpState, address: u64) -> Result<(), TargetError> {
    let fits = match state {
        DebuggerVpState::X86_64(state) => x86_64::pc(state).set(&address.to_le_bytes()),
        DebuggerVpState::Aarch64(state) => {
            state.pc = address;
            true
        }
    };
    match fits {
        true => Ok(()),
        false => Err(bad_argument(format!(
            "no code can be at {address:#x} in the VP's present mode, and nothing was changed; `monitor mode` shows the mode"
        ))),
    }
}

/// Sets the program counter to the linear address that it had before other registers were written. In a mode with
/// addresses of 32 bits the upper half of the address is lost.
fn keep_pc(state: &mut DebuggerVpState, address: u64) {
    if let DebuggerVpState::X86_64(state) = state
        && state.linear_rip().value() != address
        && let Field::Pc { rip, base, mask } = x86_64::pc(state)
    {
        *rip = address.wrapping_sub(base) & mask;
    }
}

/// The linear address of the next instruction, and the base of the code segment.
pub(crate) fn pc(state: &mut DebuggerVpState) -> (u64, u64) {
    match state {
        DebuggerVpState::X86_64(state) => match x86_64::pc(state) {
            Field::Pc { rip, base, mask } => (base.wrapping_add(*rip) & mask, base),
            _ => (state.rip, 0),
        },
        DebuggerVpState::Aarch64(state) => (state.pc, 0),
    }
}

/// The register by the numbers of conditions. `None`: conditions do not have the register.
pub(crate) fn condition_register(layout: Layout, num: RegNum) -> Option<ConditionRegister> {
    match layout.reg(num)?.id {
        RegId::X86(reg) => x86_64::condition_register(reg),
        RegId::Aarch64(_) => None,
    }
}

/// Whether a register is the program counter.
pub(crate) fn is_pc(layout: Layout, num: RegNum) -> bool {
    layout.reg(num).is_some_and(|reg| {
        matches!(
            reg.id,
            RegId::X86(X86Reg::Rip) | RegId::Aarch64(Aarch64Reg::Pc)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use vmm_core_defs::regs::Aarch64VpState;
    use vmm_core_defs::regs::X86VpState;

    const X86: Layout = Layout::X86_64 {
        avx: true,
        avx512: true,
        pkru: true,
    };

    fn x86() -> DebuggerVpState {
        DebuggerVpState::X86_64(X86VpState {
            avx: Some(Default::default()),
            avx512: Some(Box::default()),
            pkru: Some(0),
            xcr0: Some(0),
            ..Default::default()
        })
    }

    /// A value that fits the narrowest field behind a register, and differs from the value of every other register.
    fn distinct(num: RegNum, bytes: usize) -> Vec<u8> {
        let mut value = (num.0 + 0x101).to_le_bytes().to_vec();
        let fits_all_of_it = bytes == 8 || bytes >= 10;
        value.resize(bytes, if fits_all_of_it { value[0] } else { 0 });
        value
    }

    /// GDB has one address space, so it reads and writes linear addresses in every mode.
    #[test]
    fn the_program_counter_is_a_linear_address_in_every_mode() {
        let rip = X86
            .table()
            .iter()
            .find(|reg| reg.name == "rip")
            .expect("rip");
        // EFER, CS attributes, CS base, RIP, linear address.
        let long = 1 << 13;
        let table = [
            (0, 0, 0xffff_0000, 0xfff0, 0xffff_fff0_u64),
            (0, 0, 0xa000, 0x12, 0xa012),
            (0, long, 0xa000, 0x12, 0xa012),
            (1 << 10, 0, 0xffff_f000, 0x1000, 0),
            (
                1 << 10,
                long,
                0xa000,
                0xffff_8000_0000_1234,
                0xffff_8000_0000_1234,
            ),
        ];
        for (efer, attributes, base, offset, linear) in table {
            let mut state = X86VpState {
                efer,
                rip: offset,
                ..Default::default()
            };
            (state.cs.attributes, state.cs.base) = (attributes, base);
            let mut state = DebuggerVpState::X86_64(state);
            let before = state.clone();
            let block = read_all(X86, &mut state);
            assert_eq!(block.get(rip.num), Some(&linear.to_le_bytes()[..]));
            assert_eq!(pc(&mut state).0, linear);
            write(X86, &mut state, rip.num, &linear.to_le_bytes()).expect("written");
            assert_eq!(state, before, "{linear:#x}");
            set_pc(&mut state, linear).expect("set");
            assert_eq!(state, before, "{linear:#x}");
        }
    }

    /// Writes registers by name.
    fn write_named(state: &mut DebuggerVpState, values: &[(&str, u64)]) {
        let value = |(name, value): &(&str, u64)| {
            let reg = X86.by_name(name).expect("a register");
            (reg.num, value.to_le_bytes()[..reg.bytes()].to_vec())
        };
        let values: Vec<_> = values.iter().map(value).collect();
        write_all(X86, state, &values).expect("written");
    }

    /// Clients write registers one by one or all at once, in an order of their own. Of a `G`, only the registers whose
    /// value differs are written.
    #[test]
    fn the_linear_address_is_what_the_client_wrote_last_in_every_order_of_base_mode_and_rip() {
        const LINEAR: u64 = 0x41_0100;
        let compatibility = ("cs_attr", 0xc09b);
        let (base, rip) = (("cs_base", 0x40_0000), ("rip", LINEAR));
        let orders: [&[&[(&str, u64)]]; 6] = [
            &[&[compatibility, base, rip]],
            &[&[rip, base, compatibility]],
            &[&[rip], &[base, compatibility]],
            &[&[rip], &[base], &[compatibility]],
            &[&[base], &[compatibility], &[rip]],
            &[&[compatibility], &[rip], &[base]],
        ];
        for writes in orders {
            let mut state = X86VpState {
                efer: 1 << 10,
                rip: 0x1234,
                ..Default::default()
            };
            state.cs.attributes = 0xa09b;
            let mut state = DebuggerVpState::X86_64(state);
            for values in writes {
                write_named(&mut state, values);
            }
            assert_eq!(pc(&mut state).0, LINEAR, "{writes:x?}");
            let DebuggerVpState::X86_64(state) = state else {
                unreachable!("it was made so")
            };
            assert_eq!(state.rip, 0x1_0100, "{writes:x?}");
        }
    }

    #[test]
    fn a_write_of_another_register_leaves_the_linear_address_and_what_fits_of_it_in_32_bits() {
        let mut state = X86VpState {
            efer: 1 << 10,
            rip: 0xffff_ffff_8100_0000,
            ..Default::default()
        };
        state.cs.attributes = 0xa09b;
        let mut state = DebuggerVpState::X86_64(state);
        write_named(&mut state, &[("cs_base", 0x1000)]);
        assert_eq!(pc(&mut state).0, 0xffff_ffff_8100_0000);
        write_named(&mut state, &[("cs_attr", 0xc09b)]);
        assert_eq!(pc(&mut state).0, 0x8100_0000);
        write_named(&mut state, &[("cs_base", 0)]);
        assert_eq!(pc(&mut state).0, 0x8100_0000);
        let rip = X86.by_name("rip").expect("rip").num;
        let too_wide = (1_u64 << 32).to_le_bytes();
        assert!(write(X86, &mut state, rip, &too_wide).is_err());
        assert!(set_pc(&mut state, 1 << 32).is_err());
        assert_eq!(pc(&mut state).0, 0x8100_0000);
    }

    #[test]
    fn the_program_counter_of_arm_is_written_with_other_registers() {
        let mut state = DebuggerVpState::Aarch64(Aarch64VpState::default());
        let num = |name| Layout::Aarch64.by_name(name).expect("a register").num;
        let values = [(num("pc"), vec![8]), (num("x1"), vec![1])];
        write_all(Layout::Aarch64, &mut state, &values).expect("written");
        assert_eq!(pc(&mut state).0, 8);
        let block = read_all(Layout::Aarch64, &mut state);
        let x1 = 1_u64.to_le_bytes();
        assert_eq!(block.get(num("x1")), Some(x1.as_slice()));
        assert!(is_pc(Layout::Aarch64, num("pc")));
    }

    fn round_trip(layout: Layout, state: &mut DebuggerVpState, skip: &[&str]) {
        let regs: Vec<_> = layout
            .table()
            .iter()
            .filter(|reg| !skip.contains(&reg.name.as_str()))
            .collect();
        for reg in &regs {
            write(layout, state, reg.num, &distinct(reg.num, reg.bytes()))
                .unwrap_or_else(|e| panic!("{}: {e:?}", reg.name));
        }
        let block = read_all(layout, state);
        let mut seen = HashMap::new();
        for reg in &regs {
            let value = block
                .get(reg.num)
                .unwrap_or_else(|| panic!("{} is unavailable", reg.name));
            assert_eq!(
                value,
                distinct(reg.num, reg.bytes()),
                "{} holds its own value",
                reg.name
            );
            assert_eq!(
                seen.insert(value.to_vec(), &reg.name),
                None,
                "{} has a value of its own",
                reg.name
            );
        }
    }

    #[test]
    fn every_x86_register_keeps_its_own_value() {
        // The program counter depends on other registers. The test above checks it.
        round_trip(X86, &mut x86(), &["rip"]);
    }

    #[test]
    fn every_arm_register_keeps_its_own_value() {
        let mut state = DebuggerVpState::Aarch64(Aarch64VpState {
            fp: Some(Box::default()),
            ..Default::default()
        });
        // SP is SP_EL0 or SP_EL1. The test `the_arm_stack_pointer_is_the_one_in_use` checks it.
        round_trip(Layout::Aarch64, &mut state, &["sp"]);
    }

    #[test]
    fn names_meet_the_fields_they_say() {
        use vmm_core_defs::regs::x86_64::Gp;
        let mut state = x86();
        for (name, value) in [
            ("rbx", 1),
            ("rcx", 2),
            ("rsi", 3),
            ("rsp", 4),
            ("fs_base", 5),
            ("gs_base", 6),
        ] {
            let num = X86.by_name(name).unwrap().num;
            write(X86, &mut state, num, &u64::to_le_bytes(value)).unwrap();
        }
        let DebuggerVpState::X86_64(state) = state else {
            unreachable!("it was made so")
        };
        assert_eq!(
            [Gp::Rbx, Gp::Rcx, Gp::Rsi, Gp::Rsp].map(|gp| state.gp[gp as usize]),
            [1, 2, 3, 4]
        );
        assert_eq!((state.fs.base, state.gs.base), (5, 6));
    }

    #[test]
    fn what_the_vp_lacks_is_unavailable_and_cannot_be_written() {
        let mut state = DebuggerVpState::X86_64(X86VpState::default());
        let block = read_all(X86, &mut state);
        for name in ["pkru", "ymm0h", "zmm31h", "k7", "xcr0", "xmm16"] {
            let num = X86.by_name(name).unwrap().num;
            assert_eq!(block.get(num), None, "{name}");
            let error = write(X86, &mut state, num, &[1]).unwrap_err();
            assert!(error.text.contains(name), "{}", error.text);
        }
        assert!(block.get(X86.by_name("xmm15").unwrap().num).is_some());
        assert_eq!(
            write(X86, &mut state, RegNum(9999), &[1])
                .unwrap_err()
                .errno,
            22
        );
    }

    #[test]
    fn a_value_too_wide_for_its_register_changes_nothing() {
        let mut state = x86();
        let before = state.clone();
        for name in ["cs", "fctrl", "gdtr_limit"] {
            let num = X86.by_name(name).unwrap().num;
            let error = write(X86, &mut state, num, &[0, 0, 1]).unwrap_err();
            assert!(error.text.contains(name), "{}", error.text);
        }
        let rip = X86.by_name("rip").unwrap().num;
        assert!(write(X86, &mut state, rip, &[1; 33]).is_err());
        assert_eq!(state, before);
    }

    #[test]
    fn writing_eflags_leaves_the_high_half_of_rflags() {
        let mut state = DebuggerVpState::X86_64(X86VpState {
            rflags: 0xdead_0000_0002,
            ..Default::default()
        });
        write(
            X86,
            &mut state,
            X86.by_name("eflags").unwrap().num,
            &[0x46, 2, 0, 0],
        )
        .unwrap();
        let DebuggerVpState::X86_64(state) = state else {
            unreachable!("it was made so")
        };
        assert_eq!(state.rflags, 0xdead_0000_0246);
    }

    #[test]
    fn the_arm_stack_pointer_is_the_one_in_use() {
        let sp = Layout::Aarch64.by_name("sp").unwrap().num;
        // EL0; EL1 with SP_EL0; EL1 with SP_EL1.
        for (cpsr, expected) in [(0b0000, 10_u64), (0b0100, 10), (0b0101, 11)] {
            let mut state = DebuggerVpState::Aarch64(Aarch64VpState {
                cpsr,
                sp_el0: 10,
                sp_el1: 11,
                ..Default::default()
            });
            let block = read_all(Layout::Aarch64, &mut state);
            assert_eq!(
                block.get(sp),
                Some(&expected.to_le_bytes()[..]),
                "{cpsr:#b}"
            );
        }
        // EL2 is not supported.
        let mut state = DebuggerVpState::Aarch64(Aarch64VpState {
            cpsr: 0b1001,
            ..Default::default()
        });
        assert_eq!(read_all(Layout::Aarch64, &mut state).get(sp), None);
    }
}
