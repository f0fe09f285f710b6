//! The names of the bits of x86 registers, with which GDB prints `[ ZF IF ]` instead of a number (SDM volume 1, "EFLAGS
//! Register" and "MXCSR").
//!
//! Only 32-bit registers have named bits. GDB assigns a number to a value with named bits only if both have the same
//! width, and a number that a user types is an `int`: `set var $cr0=0x80050033` would be an "Invalid cast." Therefore
//! CR0, CR4, EFER, XCR0, DR6 and DR7, which have 64 bits, are plain numbers.

use crate::regs::types::Type;
use crate::regs::types::bit;
use crate::regs::types::bits;

pub(super) static EFLAGS: Type = Type::Flags {
    id: "i386_eflags",
    bytes: 4,
    fields: &[
        bit("CF", 0),
        // This bit is always set. Without a name GDB would print it as a number.
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
