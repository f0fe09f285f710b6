//! Which instructions may read a clock.

use iced_x86::Instruction;
use iced_x86::Mnemonic;

/// Whether the instruction may read or set a clock, or wait for one: itself, or by way of the hypervisor or of another mode of the processor. An instruction that cannot be decoded
/// counts as one that may.
pub(crate) fn may_look_at_a_clock(instruction: Option<&Instruction>) -> bool {
    use Mnemonic::*;
    instruction.is_none_or(|instruction| {
        matches!(
            instruction.mnemonic(),
            Rdtsc
                | Rdtscp
                | Rdpru
                | Rdpmc
                | Rdmsr
                | Rdmsrlist
                | Wrmsr
                | Wrmsrlist
                | Wrmsrns
                | Hlt
                | Mwait
                | Mwaitx
                | Tpause
                | Umwait
                | Vmcall
                | Vmmcall
                | Vmgexit
                | Vmlaunch
                | Vmresume
                | Vmrun
                | Vmfunc
                | Tdcall
                | Seamcall
                | Encls
                | Enclu
                | Enclv
                | Rsm
                | INVALID
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;
    use iced_x86::DecoderOptions;

    fn may_look(code: &[u8]) -> bool {
        let instruction = Decoder::new(64, code, DecoderOptions::NONE).decode();
        may_look_at_a_clock(Some(&instruction))
    }

    #[test]
    fn clocks_are_told_from_the_rest() {
        // rdtsc; rdtscp; hlt; wrmsr; rdpmc; vmcall; mwait; tpause; what is cut off.
        for code in [
            &[0x0f, 0x31][..],
            &[0x0f, 0x01, 0xf9],
            &[0xf4],
            &[0x0f, 0x30],
            &[0x0f, 0x33],
            &[0x0f, 0x01, 0xc1],
            &[0x0f, 0x01, 0xc9],
            &[0x66, 0x0f, 0xae, 0xf1],
            &[0x0f],
            &[],
        ] {
            assert!(may_look(code), "{code:x?}");
        }
        assert!(may_look_at_a_clock(None));
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
            assert!(!may_look(code), "{code:x?}");
        }
    }
}
