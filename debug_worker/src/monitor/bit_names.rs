//! Names of the bits in control registers (SDM volume 3, "Control Registers", "Extended Feature Enable Register"; APM
//! volume 2, "EFER").

/// Bit numbers and names, in ascending order of the numbers.
type Bits = &'static [(u32, &'static str)];

pub(super) const CR0: Bits = &[
    (0, "PE"),
    (1, "MP"),
    (2, "EM"),
    (3, "TS"),
    (4, "ET"),
    (5, "NE"),
    (16, "WP"),
    (18, "AM"),
    (29, "NW"),
    (30, "CD"),
    (31, "PG"),
];

pub(super) const CR4: Bits = &[
    (0, "VME"),
    (1, "PVI"),
    (2, "TSD"),
    (3, "DE"),
    (4, "PSE"),
    (5, "PAE"),
    (6, "MCE"),
    (7, "PGE"),
    (8, "PCE"),
    (9, "OSFXSR"),
    (10, "OSXMMEXCPT"),
    (11, "UMIP"),
    (12, "LA57"),
    (13, "VMXE"),
    (14, "SMXE"),
    (16, "FSGSBASE"),
    (17, "PCIDE"),
    (18, "OSXSAVE"),
    (19, "KL"),
    (20, "SMEP"),
    (21, "SMAP"),
    (22, "PKE"),
    (23, "CET"),
    (24, "PKS"),
    (25, "UINTR"),
    (28, "LAM_SUP"),
];

pub(super) const EFER: Bits = &[
    (0, "SCE"),
    (8, "LME"),
    (10, "LMA"),
    (11, "NXE"),
    (12, "SVME"),
    (13, "LMSLE"),
    (14, "FFXSR"),
    (15, "TCE"),
];

/// The names of the bits that are set in `value`, each after a space. A bit without a name is left out.
pub(super) fn set(bits: Bits, value: u64) -> String {
    let set = bits.iter().filter(|(bit, _)| value & 1 << bit != 0);
    set.map(|(_, name)| format!(" {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_a_linux_kernel_have_their_names() {
        assert_eq!(set(CR0, 0x8005_0033), " PE MP ET NE WP AM PG");
        assert_eq!(set(EFER, 0xd01), " SCE LME LMA NXE");
        assert_eq!(set(CR4, 0x20), " PAE");
        assert_eq!(set(CR4, 1 << 63), "");
    }
}
