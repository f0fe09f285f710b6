//! Register operands, and the addresses that `lea` computes.

use super::arithmetic::Width;
use iced_x86::Instruction;
use iced_x86::OpKind;
use iced_x86::Register;
use vmm_core_defs::regs::x86_64::Gp;

/// A general register, or the part of one that an instruction names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operand {
    index: usize,
    shift: u32,
    width: Width,
}

impl Operand {
    /// `None` for a register that is no general register.
    pub(crate) fn new(register: Register) -> Option<Self> {
        let number = register as usize;
        let from = |first: Register, index| number - first as usize + index;
        let (index, shift, width) = match register {
            Register::AL | Register::CL | Register::DL | Register::BL => {
                (from(Register::AL, 0), 0, Width::Bits8)
            }
            Register::AH | Register::CH | Register::DH | Register::BH => {
                (from(Register::AH, 0), 8, Width::Bits8)
            }
            _ if (Register::SPL as usize..=Register::R15L as usize).contains(&number) => {
                (from(Register::SPL, 4), 0, Width::Bits8)
            }
            _ if (Register::AX as usize..=Register::R15W as usize).contains(&number) => {
                (from(Register::AX, 0), 0, Width::Bits16)
            }
            _ if (Register::EAX as usize..=Register::R15D as usize).contains(&number) => {
                (from(Register::EAX, 0), 0, Width::Bits32)
            }
            _ if (Register::RAX as usize..=Register::R15 as usize).contains(&number) => {
                (from(Register::RAX, 0), 0, Width::Bits64)
            }
            _ => return None,
        };
        Some(Self {
            index,
            shift,
            width,
        })
    }

    /// The low part of a register.
    pub(super) const fn whole(register: Gp, width: Width) -> Self {
        Self {
            index: register as usize,
            shift: 0,
            width,
        }
    }

    pub(super) const fn width(self) -> Width {
        self.width
    }

    /// The value of the register.
    pub(crate) fn read(self, gp: &[u64; 16]) -> u64 {
        gp[self.index] >> self.shift & self.width.mask()
    }

    /// The value of the register, extended with its sign to 64 bits.
    pub(super) fn read_signed(self, gp: &[u64; 16]) -> u64 {
        let value = self.read(gp);
        match value & self.width.sign() {
            0 => value,
            _ => value | !self.width.mask(),
        }
    }

    /// A 32-bit result clears the upper half, smaller ones leave the rest (SDM volume 1, "General-Purpose Registers in 64-Bit Mode").
    pub(super) fn write(self, gp: &mut [u64; 16], value: u64) {
        let value = value & self.width.mask();
        let replaced = match self.width {
            Width::Bits32 | Width::Bits64 => u64::MAX,
            Width::Bits8 | Width::Bits16 => self.width.mask() << self.shift,
        };
        let register = &mut gp[self.index];
        *register = *register & !replaced | value << self.shift;
    }
}

/// The offset of the memory operand of `lea`, cut to the address size. `None` if the operand is no plain memory operand.
pub(super) fn effective_address(instruction: &Instruction, gp: &[u64; 16]) -> Option<u64> {
    if instruction.op_kind(1) != OpKind::Memory {
        return None;
    }
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    // For a RIP-relative operand, iced-x86 returns the address as the displacement.
    let part = |register| match register {
        Register::None | Register::RIP | Register::EIP => Some(0),
        _ => Operand::new(register).map(|operand| operand.read(gp)),
    };
    let scaled = part(index)?.wrapping_mul(instruction.memory_index_scale().into());
    let width = match (base, index) {
        (Register::RIP, _) => Width::Bits64,
        (Register::EIP, _) => Width::Bits32,
        (Register::None, Register::None) => match instruction.memory_displ_size() {
            2 => Width::Bits16,
            4 => Width::Bits32,
            8 => Width::Bits64,
            _ => return None,
        },
        (Register::None, register) | (register, _) => Operand::new(register)?.width(),
    };
    let sum = part(base)?
        .wrapping_add(scaled)
        .wrapping_add(instruction.memory_displacement64());
    Some(sum & width.mask())
}
