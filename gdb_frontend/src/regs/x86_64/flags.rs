//! Names of the bits of x86 registers, so that GDB prints `[ PE WP PG ]` and not a number (SDM volume 1, "EFLAGS Register" and
//! "MXCSR"; volume 3, "Control Registers" and "Debug Registers").

use crate::regs::types::Type;
use crate::regs::types::bit;
use crate::regs::types::bits;

pub(super) static EFLAGS: Type = Type::Flags {
    id: "i386_eflags",
    bytes: 4,
    fields: &[
        bit("CF", 0),
        // Always set. Without a name GDB would print it as a number.
        bit("", 1),
        bit("PF", 2),
        bit("AF", 4),
        bit("ZF", 6),
        bit("SF", 7),
        bit("TF", 8),
        bit("IF", 9),
        bit("DF", 10),
        bit("OF", 11),
        bit("NT", 14),
        bit("RF", 16),
        bit("VM", 17),
        bit("AC", 18),
        bit("VIF", 19),
        bit("VIP", 20),
        bit("ID", 21),
    ],
};

pub(super) static MXCSR: Type = Type::Flags {
    id: "i386_mxcsr",
    bytes: 4,
    fields: &[
        bit("IE", 0),
        bit("DE", 1),
        bit("ZE", 2),
        bit("OE", 3),
        bit("UE", 4),
        bit("PE", 5),
        bit("DAZ", 6),
        bit("IM", 7),
        bit("DM", 8),
        bit("ZM", 9),
        bit("OM", 10),
        bit("UM", 11),
        bit("PM", 12),
        bit("FZ", 15),
    ],
};

pub(super) static CR0: Type = Type::Flags {
    id: "x86_cr0",
    bytes: 8,
    fields: &[
        bit("PE", 0),
        bit("MP", 1),
        bit("EM", 2),
        bit("TS", 3),
        bit("ET", 4),
        bit("NE", 5),
        bit("WP", 16),
        bit("AM", 18),
        bit("NW", 29),
        bit("CD", 30),
        bit("PG", 31),
    ],
};

pub(super) static CR4: Type = Type::Flags {
    id: "x86_cr4",
    bytes: 8,
    fields: &[
        bit("VME", 0),
        bit("PVI", 1),
        bit("TSD", 2),
        bit("DE", 3),
        bit("PSE", 4),
        bit("PAE", 5),
        bit("MCE", 6),
        bit("PGE", 7),
        bit("PCE", 8),
        bit("OSFXSR", 9),
        bit("OSXMMEXCPT", 10),
        bit("UMIP", 11),
        bit("LA57", 12),
        bit("VMXE", 13),
        bit("SMXE", 14),
        bit("FSGSBASE", 16),
        bit("PCIDE", 17),
        bit("OSXSAVE", 18),
        bit("KL", 19),
        bit("SMEP", 20),
        bit("SMAP", 21),
        bit("PKE", 22),
        bit("CET", 23),
        bit("PKS", 24),
        bit("UINTR", 25),
        bit("LAM_SUP", 28),
    ],
};

pub(super) static EFER: Type = Type::Flags {
    id: "x86_efer",
    bytes: 8,
    fields: &[
        bit("SCE", 0),
        bit("LME", 8),
        bit("LMA", 10),
        bit("NXE", 11),
        bit("SVME", 12),
        bit("LMSLE", 13),
        bit("FFXSR", 14),
        bit("TCE", 15),
    ],
};

pub(super) static XCR0: Type = Type::Flags {
    id: "x86_xcr0",
    bytes: 8,
    fields: &[
        bit("X87", 0),
        bit("SSE", 1),
        bit("AVX", 2),
        bit("BNDREGS", 3),
        bit("BNDCSR", 4),
        bit("OPMASK", 5),
        bit("ZMM_HI256", 6),
        bit("HI16_ZMM", 7),
        bit("PKRU", 9),
        bit("TILECFG", 17),
        bit("TILEDATA", 18),
    ],
};

pub(super) static DR6: Type = Type::Flags {
    id: "x86_dr6",
    bytes: 8,
    fields: &[
        bit("B0", 0),
        bit("B1", 1),
        bit("B2", 2),
        bit("B3", 3),
        bit("BLD", 11),
        bit("BD", 13),
        bit("BS", 14),
        bit("BT", 15),
        bit("RTM", 16),
    ],
};

pub(super) static DR7: Type = Type::Flags {
    id: "x86_dr7",
    bytes: 8,
    fields: &[
        bit("L0", 0),
        bit("G0", 1),
        bit("L1", 2),
        bit("G1", 3),
        bit("L2", 4),
        bit("G2", 5),
        bit("L3", 6),
        bit("G3", 7),
        bit("LE", 8),
        bit("GE", 9),
        bit("RTM", 11),
        bit("GD", 13),
        bits("RW0", 16, 17),
        bits("LEN0", 18, 19),
        bits("RW1", 20, 21),
        bits("LEN1", 22, 23),
        bits("RW2", 24, 25),
        bits("LEN2", 26, 27),
        bits("RW3", 28, 29),
        bits("LEN3", 30, 31),
    ],
};

pub(super) static SEGMENT_ATTRIBUTES: Type = Type::Flags {
    id: "x86_segment",
    bytes: 4,
    fields: &[
        bits("TYPE", 0, 3),
        bit("S", 4),
        bits("DPL", 5, 6),
        bit("P", 7),
        bit("AVL", 12),
        bit("L", 13),
        bit("DB", 14),
        bit("G", 15),
        bit("UNUSABLE", 16),
    ],
};
