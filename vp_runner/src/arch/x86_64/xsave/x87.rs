//! The x87 part of the area: the FXSAVE layout (SDM volume 1, "x87 State"), and its tag word in both forms.

use super::bytes;
use super::put;
use vmm_core_defs::regs::x86_64::X87State;

const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FCS: usize = 12;
const FIP_TOP: usize = 14;
const FDP: usize = 16;
const FDS: usize = 20;
const FDP_TOP: usize = 22;
const ST: usize = 32;
const ST_BITS: u128 = (1 << 80) - 1;

/// The state after FNINIT, which is also the initial state of the component.
pub(super) const INIT: X87State = X87State {
    st: [0; 8],
    fcw: 0x37f,
    fsw: 0,
    ftw: 0xffff,
    fop: 0,
    fip: 0,
    fcs: 0,
    fdp: 0,
    fds: 0,
};

pub(super) fn read(area: &[u8]) -> X87State {
    let u16_at = |at| u16::from_le_bytes(bytes(area, at));
    let st = std::array::from_fn(|n| u128::from_le_bytes(bytes(area, ST + 16 * n)) & ST_BITS);
    let fsw = u16_at(FSW);
    X87State {
        st,
        fcw: u16_at(FCW),
        fsw,
        ftw: full_tags(area[FTW], fsw, &st),
        fop: u16_at(FOP),
        fip: u32::from_le_bytes(bytes(area, FIP)),
        fcs: u16_at(FCS),
        fdp: u32::from_le_bytes(bytes(area, FDP)),
        fds: u16_at(FDS),
    }
}

/// Bytes 14-15 and 22-23 belong to the 64-bit form of the pointers; the register file cannot hold them, so they stay.
pub(super) fn write(area: &mut [u8], x87: &X87State, tags_changed: bool, was_init: bool) {
    for (n, st) in x87.st.iter().enumerate() {
        put(area, ST + 16 * n, &(st & ST_BITS).to_le_bytes());
    }
    put(area, FCW, &x87.fcw.to_le_bytes());
    put(area, FSW, &x87.fsw.to_le_bytes());
    put(area, FOP, &x87.fop.to_le_bytes());
    put(area, FIP, &x87.fip.to_le_bytes());
    put(area, FCS, &x87.fcs.to_le_bytes());
    put(area, FDP, &x87.fdp.to_le_bytes());
    put(area, FDS, &x87.fds.to_le_bytes());
    if tags_changed || was_init {
        area[FTW] = abridged_tags(x87.ftw);
    }
    if was_init {
        put(area, FIP_TOP, &[0; 2]);
        put(area, FDP_TOP, &[0; 2]);
    }
}

const VALID: u16 = 0b00;
const ZERO: u16 = 0b01;
const SPECIAL: u16 = 0b10;
const EMPTY: u16 = 0b11;

/// The 16-bit tag word from FXSAVE's one bit for each physical register: what is not empty is classified by its value
/// (SDM volume 2, FXSAVE, "Recreating FSAVE Format").
fn full_tags(abridged: u8, fsw: u16, st: &[u128; 8]) -> u16 {
    let top = usize::from(fsw >> 11 & 7);
    (0..8).fold(0, |tags, physical| {
        let tag = if abridged >> physical & 1 == 0 {
            EMPTY
        } else {
            classify(st[(physical + 8 - top) % 8])
        };
        tags | tag << (2 * physical)
    })
}

fn classify(st: u128) -> u16 {
    let exponent = st >> 64 & 0x7fff;
    let significand = st & u128::from(u64::MAX);
    match exponent {
        0 if significand == 0 => ZERO,
        0 | 0x7fff => SPECIAL,
        _ if significand >> 63 == 1 => VALID,
        _ => SPECIAL,
    }
}

/// FXSAVE's form of a tag word: a bit is set for each physical register that is not empty.
fn abridged_tags(full: u16) -> u8 {
    (0..8).fold(0, |tags, physical| {
        tags | u8::from(full >> (2 * physical) & 0b11 != EMPTY) << physical
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: u128 = 0x3fff_8000_0000_0000_0000;

    #[test]
    fn tags_follow_the_stack_top() {
        // Physical register 6 is ST(0) when TOP is 6.
        let mut st = [0; 8];
        st[0] = ONE;
        let fsw = 6 << 11;
        assert_eq!(full_tags(1 << 6, fsw, &st), !(0b11 << 12));
        assert_eq!(full_tags(1 << 7, fsw, &st), !(0b10 << 14), "ST(1) is zero");
    }

    #[test]
    fn values_are_classified_as_the_manual_says() {
        assert_eq!(classify(ONE), VALID);
        assert_eq!(classify(1 << 79), ZERO, "minus zero");
        assert_eq!(classify(1), SPECIAL, "denormal");
        assert_eq!(classify(0x7fff_8000_0000_0000_0000), SPECIAL, "infinity");
        assert_eq!(classify(0x3fff_0000_0000_0000_0000), SPECIAL, "unnormal");
    }

    proptest! {
        #[test]
        fn emptiness_survives_both_ways(abridged: u8, fsw: u16, st in prop::array::uniform8(any::<u128>())) {
            prop_assert_eq!(abridged_tags(full_tags(abridged, fsw, &st)), abridged);
        }
    }
}
