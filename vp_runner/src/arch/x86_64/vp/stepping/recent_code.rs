//! The faultless instructions that the VP has stepped over lately.
//!
//! A loop consists of few instructions, and decoding one takes longer than comparing its bytes.

use crate::arch::x86_64::instruction::decode;
use crate::arch::x86_64::step_effects::class;
use crate::arch::x86_64::step_effects::class::Class;
use iced_x86::Instruction;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;

/// The bytes from an instruction on.
pub(super) type Bytes = [u8; MAX_INSTRUCTION_LEN];

/// One place for each value of the lowest bits of RIP: a loop of this many bytes has a place for each of its instructions.
const PLACES: u8 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct RecentCode(Box<[Option<Faultless>; PLACES as usize]>);

/// An instruction of [`Class::Faultless`] in 64-bit code.
#[derive(Debug, Clone, Copy)]
struct Faultless {
    rip: Gva,
    bytes: Bytes,
    instruction: Instruction,
}

impl Default for RecentCode {
    fn default() -> Self {
        Self(Box::new([None; PLACES as usize]))
    }
}

impl RecentCode {
    /// The instruction at `rip` in 64-bit code, which begins with `bytes`. `None` if it is not [`Class::Faultless`].
    pub(super) fn faultless(&mut self, rip: Gva, bytes: &Bytes) -> Option<Instruction> {
        let [low, ..] = rip.value().to_le_bytes();
        let place = &mut self.0[usize::from(low % PLACES)];
        match place {
            Some(known) if known.rip == rip && known.bytes == *bytes => Some(known.instruction),
            _ => {
                let instruction = decode(CpuMode::Long64, rip.value(), bytes)?;
                (class::of(Some(&instruction)) == Class::Faultless).then(|| {
                    let bytes = *bytes;
                    *place = Some(Faultless {
                        rip,
                        bytes,
                        instruction,
                    });
                    instruction
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Mnemonic;

    const INC_EAX: [u8; 2] = [0xff, 0xc0];
    const DEC_EAX: [u8; 2] = [0xff, 0xc8];
    /// `jmp` back to the instruction before it.
    const JMP: [u8; 2] = [0xeb, 0xfc];
    const PUSHF: [u8; 1] = [0x9c];

    fn at(recent: &mut RecentCode, rip: u64, code: &[u8]) -> Option<Instruction> {
        let mut bytes = [0x90; MAX_INSTRUCTION_LEN];
        bytes[..code.len()].copy_from_slice(code);
        recent.faultless(Gva::new(rip), &bytes)
    }

    #[track_caller]
    fn mnemonic(found: Option<Instruction>) -> Option<Mnemonic> {
        found.map(|instruction| instruction.mnemonic())
    }

    #[test]
    fn changed_code_is_decoded_again() {
        let mut recent = RecentCode::default();
        for _ in 0..2 {
            assert_eq!(
                mnemonic(at(&mut recent, 0x1000, &INC_EAX)),
                Some(Mnemonic::Inc)
            );
        }
        assert_eq!(
            mnemonic(at(&mut recent, 0x1000, &DEC_EAX)),
            Some(Mnemonic::Dec)
        );
        assert_eq!(mnemonic(at(&mut recent, 0x1000, &PUSHF)), None);
        assert_eq!(
            mnemonic(at(&mut recent, 0x1000, &DEC_EAX)),
            Some(Mnemonic::Dec)
        );
    }

    #[test]
    fn the_same_bytes_in_another_place_are_another_instruction() {
        let mut recent = RecentCode::default();
        let places = [0x1000, 0x1000 + u64::from(PLACES), 0x1000];
        for rip in places {
            let jump = at(&mut recent, rip, &JMP).expect("faultless");
            assert_eq!(jump.near_branch_target(), rip - 2);
        }
    }

    #[test]
    fn a_known_instruction_is_not_decoded() {
        let mut recent = RecentCode::default();
        at(&mut recent, 0x1000, &INC_EAX).expect("faultless");
        let known = recent.0[0].as_mut().expect("known");
        known.instruction.set_next_ip(0x4711);
        let again = at(&mut recent, 0x1000, &INC_EAX).expect("faultless");
        assert_eq!(again.next_ip(), 0x4711);
    }
}
