//! Linear addresses of offsets in a code or stack segment.

use super::X86VpState;
use super::bits::efer;
use super::segment_attributes;
use crate::addr::Gva;

/// The translation of an offset in a code or stack segment to a linear address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentTranslation {
    /// Added to the offset.
    pub base: u64,
    /// The bits of the sum that a linear address has.
    pub mask: u64,
}

impl SegmentTranslation {
    /// The translation in a segment with this base. In 64-bit code these segments have base 0. In other modes the sum wraps
    /// at 4 GiB (SDM volume 1, "Memory Organization" and "Segmentation in 64-bit mode").
    pub const fn new(is_64_bit_code: bool, base: u64) -> Self {
        match is_64_bit_code {
            true => Self {
                base: 0,
                mask: u64::MAX,
            },
            false => Self {
                base,
                mask: 0xffff_ffff,
            },
        }
    }

    /// The linear address of an offset. The offset is not wrapped at 16 bits, because the instruction that computes the
    /// offset does this.
    pub const fn linear(self, offset: u64) -> Gva {
        Gva::new(self.base.wrapping_add(offset) & self.mask)
    }
}

impl X86VpState {
    /// Whether the VP executes 64-bit code: EFER.LMA and CS.L are set.
    pub const fn is_64_bit_code(&self) -> bool {
        self.efer & efer::LMA != 0 && self.cs.attributes & segment_attributes::LONG != 0
    }

    /// The translation of RIP.
    pub const fn code_translation(&self) -> SegmentTranslation {
        SegmentTranslation::new(self.is_64_bit_code(), self.cs.base)
    }

    /// The linear address of RIP.
    pub const fn linear_rip(&self) -> Gva {
        self.code_translation().linear(self.rip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rip_has_a_base_outside_64_bit_code_and_wraps_at_4_gib_there() {
        const L: u32 = segment_attributes::LONG;
        for (lma, attributes, base, rip, linear) in [
            (0, 0, 0xf_0000, 0xfff0, 0xf_fff0),
            (0, 0, 0xffff_0000, 0x1_fff0, 0xfff0),
            // CS.L has no effect outside long mode, and EFER.LMA alone means compatibility mode.
            (0, L, 0x1000, 0x10, 0x1010),
            (efer::LMA, 0, 0x1000, 0x10, 0x1010),
            (efer::LMA, L, 0x1000, 0x10, 0x10),
            (
                efer::LMA,
                L,
                0,
                0xffff_ffff_8100_0000,
                0xffff_ffff_8100_0000,
            ),
        ] {
            let mut state = X86VpState {
                efer: lma,
                rip,
                ..Default::default()
            };
            state.cs.base = base;
            state.cs.attributes = attributes;
            assert_eq!(state.linear_rip(), Gva::new(linear), "base {base:#x}");
        }
    }
}
