//! Results and status flags of the arithmetic instructions (SDM volume 1, "Status Flags").

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// The flags that every operation here sets or clears.
pub(super) const STATUS_FLAGS: u64 = CF | PF | AF | ZF | SF | OF;

/// The width of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Bits8,
    Bits16,
    Bits32,
    Bits64,
}

impl Width {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Bits8 => 1,
            Self::Bits16 => 2,
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    pub(super) const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    pub(super) const fn sign(self) -> u64 {
        self.mask() ^ self.mask() >> 1
    }
}

/// The result of two numbers, and the status flags. The left number has no bits above the width.
pub(super) type Operation = fn(Width, u64, u64) -> (u64, u64);

/// The result of `left + right`, and its flags.
pub(super) fn add(width: Width, left: u64, right: u64) -> (u64, u64) {
    let right = right & width.mask();
    let result = left.wrapping_add(right) & width.mask();
    let carry = if result < left { CF } else { 0 };
    let overflow = (left ^ result) & (right ^ result);
    (
        result,
        carry | of(width, overflow) | af(left, right, result) | of_result(width, result),
    )
}

/// The result of `left - right`, and its flags.
pub(super) fn sub(width: Width, left: u64, right: u64) -> (u64, u64) {
    let right = right & width.mask();
    let result = left.wrapping_sub(right) & width.mask();
    let borrow = if left < right { CF } else { 0 };
    let overflow = (left ^ right) & (left ^ result);
    (
        result,
        borrow | of(width, overflow) | af(left, right, result) | of_result(width, result),
    )
}

/// The result of `left & right`, and its flags. AF is undefined in the manual and clear in every processor.
pub(super) fn and(width: Width, left: u64, right: u64) -> (u64, u64) {
    let result = left & right & width.mask();
    (result, of_result(width, result))
}

/// The result of `left | right`, and its flags. AF is undefined in the manual and clear in every processor.
pub(super) fn or(width: Width, left: u64, right: u64) -> (u64, u64) {
    let result = (left | right) & width.mask();
    (result, of_result(width, result))
}

/// The result of `left ^ right`, and its flags. AF is undefined in the manual and clear in every processor.
pub(super) fn xor(width: Width, left: u64, right: u64) -> (u64, u64) {
    let result = (left ^ right) & width.mask();
    (result, of_result(width, result))
}

fn of(width: Width, overflow: u64) -> u64 {
    if overflow & width.sign() != 0 { OF } else { 0 }
}

/// A carry into bit 4 shows as a difference there.
fn af(left: u64, right: u64, result: u64) -> u64 {
    (left ^ right ^ result) & AF
}

fn of_result(width: Width, result: u64) -> u64 {
    let [low, ..] = result.to_le_bytes();
    let mut flags = 0;
    if low.count_ones() % 2 == 0 {
        flags |= PF;
    }
    if result == 0 {
        flags |= ZF;
    }
    if result & width.sign() != 0 {
        flags |= SF;
    }
    flags
}
