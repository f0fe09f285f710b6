//! Sorting instructions by how much has to be known before they are stepped.

use super::Kind;
use super::kind;
use iced_x86::Code;
use iced_x86::CodeSize;
use iced_x86::Instruction;
use iced_x86::Mnemonic;
use iced_x86::OpKind;
use vmm_core_defs::regs::x86_64::bits::rflags;

/// How an instruction is stepped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The instruction neither stores nor loads RFLAGS.TF.
    Plain,
    /// As [`Plain`](Self::Plain), and the instruction raises no exception once it is fetched: 64-bit code on general registers alone, or a near jump to an
    /// immediate address.
    Faultless,
    /// As [`Plain`](Self::Plain), but the instruction may write a debug register.
    DebugRegister,
    /// `hlt`, which neither stores nor loads RFLAGS.TF.
    Halt,
    /// `syscall`. Its effect depends on MSRs.
    SystemCall,
    /// The instruction may store or load RFLAGS, or switch tasks. Or it cannot be decoded.
    Special,
}

/// Sorts an instruction. `None`: it cannot be decoded.
pub(crate) fn of(instruction: Option<&Instruction>) -> Class {
    let Some(instruction) = instruction else {
        return Class::Special;
    };
    // With OF set, `into` is a software interrupt.
    match kind::of(rflags::OF, Some(instruction)) {
        Kind::PushFlags { .. }
        | Kind::PopFlags
        | Kind::InterruptReturn { .. }
        | Kind::SoftwareInterrupt { .. }
        | Kind::SystemReturn { .. }
        | Kind::FarTransfer => Class::Special,
        Kind::SystemCall => Class::SystemCall,
        Kind::Halt => Class::Halt,
        Kind::Ordinary if writes_debug_register(instruction) => Class::DebugRegister,
        Kind::Ordinary if is_faultless(instruction) => Class::Faultless,
        Kind::Ordinary
        | Kind::SystemEnter
        | Kind::StackSegment
        | Kind::EnableInterrupts
        | Kind::RepeatedString
        | Kind::Intercepted
        | Kind::LoadTaskRegister => Class::Plain,
    }
}

fn writes_debug_register(instruction: &Instruction) -> bool {
    instruction.mnemonic() == Mnemonic::Mov && instruction.op0_register().is_dr()
}

fn is_faultless(instruction: &Instruction) -> bool {
    if instruction.has_lock_prefix() {
        return false;
    }
    match instruction.mnemonic() {
        Mnemonic::Lea => instruction.op0_register().is_gpr() && is_64_bit(instruction),
        mnemonic if is_near_jump(mnemonic) => is_without_prefix(instruction),
        // `90h`, and not the forms with an operand, which are younger.
        Mnemonic::Nop => instruction.op_count() == 0 && is_64_bit(instruction),
        mnemonic if works_on_registers(mnemonic) => {
            is_64_bit(instruction)
                && (0..instruction.op_count()).all(|operand| is_harmless(instruction, operand))
        }
        _ => false,
    }
}

/// Whether a jump to an immediate address is 64-bit code without a prefix: a prefix would cut RIP to 16 bits on some processors.
fn is_without_prefix(jump: &Instruction) -> bool {
    let len = match jump.code() {
        Code::Jmp_rel32_64 => 5,
        Code::Ja_rel32_64
        | Code::Jae_rel32_64
        | Code::Jb_rel32_64
        | Code::Jbe_rel32_64
        | Code::Je_rel32_64
        | Code::Jg_rel32_64
        | Code::Jge_rel32_64
        | Code::Jl_rel32_64
        | Code::Jle_rel32_64
        | Code::Jne_rel32_64
        | Code::Jno_rel32_64
        | Code::Jnp_rel32_64
        | Code::Jns_rel32_64
        | Code::Jo_rel32_64
        | Code::Jp_rel32_64
        | Code::Js_rel32_64 => 6,
        _ => 2,
    };
    jump.op0_kind() == OpKind::NearBranch64 && jump.len() == len
}

fn is_64_bit(instruction: &Instruction) -> bool {
    instruction.code_size() == CodeSize::Code64
}

/// Whether an operand is a general register or part of the instruction.
fn is_harmless(instruction: &Instruction, operand: u32) -> bool {
    match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => true,
        _ => false,
    }
}

fn is_near_jump(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Jmp | Ja
            | Jae
            | Jb
            | Jbe
            | Je
            | Jg
            | Jge
            | Jl
            | Jle
            | Jne
            | Jno
            | Jnp
            | Jns
            | Jo
            | Jp
            | Js
            | Jrcxz
            | Loop
            | Loope
            | Loopne
    )
}

/// Instructions that raise no exception if they work on general registers. Every processor of 64 bits has them. Only those are looked for that programs are mostly made of.
fn works_on_registers(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Mov | Movsx
            | Movsxd
            | Movzx
            | Add
            | Adc
            | Sub
            | Sbb
            | And
            | Or
            | Xor
            | Not
            | Neg
            | Inc
            | Dec
            | Cmp
            | Test
            | Imul
            | Mul
            | Rol
            | Ror
            | Rcl
            | Rcr
            | Shl
            | Sal
            | Shr
            | Sar
            | Xchg
            | Cbw
            | Cwde
            | Cdqe
            | Cwd
            | Cdq
            | Cqo
            | Cmc
            | Clc
            | Stc
            | Cld
            | Std
            | Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
            | Seta
            | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::CpuidFeature;
    use iced_x86::Decoder;
    use iced_x86::DecoderOptions;
    use iced_x86::FlowControl;
    use iced_x86::InstructionInfoFactory;

    /// Every one- and two-byte opcode with every ModRM byte, behind some prefixes.
    fn every_opcode() -> impl Iterator<Item = Vec<u8>> {
        let prefixes: [&[u8]; 6] = [&[], &[0x66], &[0xf3], &[0x48], &[0x66, 0x4f], &[0xf2, 0x2e]];
        let maps: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
        prefixes.into_iter().flat_map(move |prefix| {
            maps.into_iter().flat_map(move |map| {
                (0..=0xffff_u16).map(move |code| {
                    let code = code.to_le_bytes();
                    [prefix, map, &code, &[0; 8]].concat()
                })
            })
        })
    }

    fn class(bytes: &[u8], bits: u32) -> Class {
        let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        of((!instruction.is_invalid()).then_some(&instruction))
    }

    #[test]
    fn what_is_called_plain_touches_no_trap_flag() {
        for bytes in every_opcode() {
            for bits in [16, 32, 64] {
                let mut decoder = Decoder::new(bits, &bytes, DecoderOptions::NONE);
                let instruction = decoder.decode();
                let instruction = (!instruction.is_invalid()).then_some(&instruction);
                let found = of(instruction);
                let kind = kind::of(rflags::OF, instruction);
                if found == Class::Faultless {
                    assert_eq!(kind, Kind::Ordinary, "{bytes:x?}");
                }
                match kind {
                    Kind::PushFlags { .. }
                    | Kind::PopFlags
                    | Kind::InterruptReturn { .. }
                    | Kind::SoftwareInterrupt { .. }
                    | Kind::FarTransfer
                    | Kind::SystemReturn { .. } => assert_eq!(found, Class::Special, "{bytes:x?}"),
                    Kind::SystemCall => assert_eq!(found, Class::SystemCall, "{bytes:x?}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_is_called_faultless_touches_no_memory_and_cannot_be_refused() {
        let mut factory = InstructionInfoFactory::new();
        let mut found = 0;
        for bytes in every_opcode() {
            if class(&bytes, 64) != Class::Faultless {
                continue;
            }
            found += 1;
            assert_ne!(class(&bytes, 32), Class::Faultless, "{bytes:x?}");
            let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
            let instruction = decoder.decode();
            let info = factory.info(&instruction);
            let mnemonic = instruction.mnemonic();
            let everywhere = |feature: &CpuidFeature| {
                matches!(
                    feature,
                    CpuidFeature::INTEL8086
                        | CpuidFeature::INTEL186
                        | CpuidFeature::INTEL286
                        | CpuidFeature::INTEL386
                        | CpuidFeature::X64
                        | CpuidFeature::CMOV
                )
            };
            let goes_on = match instruction.flow_control() {
                FlowControl::Next => true,
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    instruction.op0_kind() == OpKind::NearBranch64 && bytes[0] != 0x66
                }
                _ => false,
            };
            assert!(!instruction.is_invalid(), "{bytes:x?}");
            assert!(
                mnemonic == Mnemonic::Lea || info.used_memory().is_empty(),
                "{bytes:x?}: {mnemonic:?}"
            );
            assert!(
                !matches!(mnemonic, Mnemonic::Div | Mnemonic::Idiv),
                "{bytes:x?}"
            );
            assert!(!instruction.is_privileged(), "{bytes:x?}: {mnemonic:?}");
            assert!(!instruction.has_lock_prefix(), "{bytes:x?}: {mnemonic:?}");
            assert!(goes_on, "{bytes:x?}: {mnemonic:?}");
            assert!(
                instruction.cpuid_features().iter().all(everywhere),
                "{bytes:x?}: {mnemonic:?}"
            );
        }
        assert!(found > 10_000, "{found}");
    }

    #[test]
    fn the_usual_instructions_are_plain() {
        let faultless: [&[u8]; 7] = [
            &[0x90],
            &[0x48, 0x89, 0xe5],
            &[0x83, 0xff, 0x01],
            &[0x76, 0x26],
            &[0x0f, 0xaf, 0xc1],
            &[0x48, 0x8d, 0x44, 0x24, 0x08],
            &[0x66, 0x90],
        ];
        for bytes in faultless {
            assert_eq!(class(bytes, 64), Class::Faultless, "{bytes:x?}");
        }
        let usual: [&[u8]; 8] = [
            &[0x48, 0x89, 0x45, 0xf8],
            &[0xf7, 0xf1],
            &[0x55],
            &[0xe8, 0, 0, 0, 0],
            &[0xff, 0xe3],
            &[0x0f, 0xa2],
            &[0xf3, 0xa4],
            &[0xc3, 0x90],
        ];
        for bytes in usual {
            assert_eq!(class(bytes, 64), Class::Plain, "{bytes:x?}");
        }
        assert_eq!(class(&[0x48], 64), Class::Special, "cut off");
        assert_eq!(class(&[], 64), Class::Special);
    }
}
