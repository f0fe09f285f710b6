//! Which instructions may read a clock, from their bytes alone. Pure.

/// Whether the instruction at the start of `code` may read or set a clock or wait for one, in any mode: `rdtsc`, `rdtscp`, `rdpru`, `rdmsr`, `wrmsr` in their
/// forms, `hlt`, and the hypercalls and other instructions that share their opcodes. What cannot be told is taken for one.
pub(crate) fn may_look_at_a_clock(code: &[u8]) -> bool {
    let prefix = |byte: &u8| {
        matches!(
            byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3
        )
    };
    // Where 40h to 4fh are no prefixes they are whole instructions, and the answer is about the next one too: the safe side.
    let mut opcode = code.iter().skip_while(|byte| prefix(byte));
    match opcode.next() {
        None => true,
        // hlt; VEX and EVEX, among them rdmsr and wrmsr with an immediate (also lds, les and bound, which is the safe side).
        Some(0xf4 | 0xc4 | 0xc5 | 0x62) => true,
        Some(0x0f) => match opcode.next() {
            None | Some(0x30..=0x33) => true,
            // Memory operands are those of lgdt and its like.
            Some(0x01) => opcode.next().is_none_or(|modrm| *modrm >= 0xc0),
            Some(_) => false,
        },
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;
    use iced_x86::DecoderOptions;
    use iced_x86::Mnemonic;
    use proptest::prelude::*;

    fn clock(mnemonic: Mnemonic) -> bool {
        matches!(
            mnemonic,
            Mnemonic::Rdtsc
                | Mnemonic::Rdtscp
                | Mnemonic::Rdpru
                | Mnemonic::Rdmsr
                | Mnemonic::Wrmsr
                | Mnemonic::Rdmsrlist
                | Mnemonic::Wrmsrlist
                | Mnemonic::Wrmsrns
                | Mnemonic::Rdpmc
                | Mnemonic::Hlt
                | Mnemonic::Mwait
                | Mnemonic::Mwaitx
                | Mnemonic::Vmcall
                | Mnemonic::Vmmcall
        )
    }

    #[test]
    fn clocks_are_told_from_the_rest() {
        for code in [
            &[0x0f, 0x31][..],
            &[0x0f, 0x01, 0xf9],
            &[0xf4],
            &[0x0f, 0x30],
            &[],
        ] {
            assert!(may_look_at_a_clock(code), "{code:x?}");
        }
        // nop; mov rax, rbx; push rbp; call; cpuid; lgdt [rax]; jne
        for code in [
            &[0x90][..],
            &[0x48, 0x89, 0xd8],
            &[0x55],
            &[0xe8, 0, 0, 0, 0],
            &[0x0f, 0xa2],
            &[0x0f, 0x01, 0x10],
            &[0x0f, 0x85, 0, 0, 0, 0],
        ] {
            assert!(!may_look_at_a_clock(code), "{code:x?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// With the opcodes in question made likely.
        #[test]
        fn none_is_missed_in_any_mode(
            prefixes in prop::collection::vec(any::<u8>(), 0..3),
            opcode in prop::sample::select(vec![0x0f, 0xf4, 0xc4, 0x62, 0x90]),
            second in prop_oneof![Just(0x01), 0x30..0x34_u8, any::<u8>()],
            rest in any::<[u8; 10]>(),
        ) {
            let mut code = prefixes;
            code.extend([opcode, second]);
            code.extend(rest);
            for bits in [16, 32, 64] {
                let decoded = Decoder::new(bits, &code, DecoderOptions::NONE).decode();
                if clock(decoded.mnemonic()) {
                    prop_assert!(may_look_at_a_clock(&code), "{:?} {code:x?}", decoded.mnemonic());
                }
            }
        }
    }
}
