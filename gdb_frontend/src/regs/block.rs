//! The values of all registers of a VP.

use super::Layout;
use super::Reg;
use super::RegNum;

/// The bytes of all registers of a layout, in table order, with a flag for each register that is available. A new block
/// has no available register: a register that is not set is shown as `<unavailable>`, never as 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterBlock {
    layout: Layout,
    bytes: Vec<u8>,
    /// Indexed by the register's number.
    available: Vec<bool>,
}

impl RegisterBlock {
    /// A block in which every register is unavailable.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            bytes: vec![0; layout.total_bytes()],
            available: vec![false; layout.table().len()],
        }
    }

    /// The layout of this block.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Sets a register from little-endian bytes. A shorter value is extended with zeros. It is an error of the caller
    /// if the number is not in the table, or if the value has other bytes than zeros beyond the register's width: a
    /// debug build panics, and a release build does not change the register.
    pub fn set(&mut self, num: RegNum, value: &[u8]) {
        let Some(reg) = self.layout.reg(num) else {
            debug_assert!(false, "register {} is not in {:?}", num.0, self.layout);
            return;
        };
        let (value, rest) = value.split_at(value.len().min(reg.bytes()));
        if rest.iter().any(|&byte| byte != 0) {
            debug_assert!(false, "the value does not fit {}", reg.name);
            return;
        }
        let slot = &mut self.bytes[reg.offset..reg.offset + reg.bytes()];
        slot[..value.len()].copy_from_slice(value);
        slot[value.len()..].fill(0);
        self.available[usize::from(num.0)] = true;
    }

    /// [`set`](Self::set) for a number. The register may have any width.
    pub fn set_uint(&mut self, num: RegNum, value: impl Into<u128>) {
        self.set(num, &value.into().to_le_bytes());
    }

    /// The bytes of a register, little-endian. `None` if the register is unavailable or not in the table.
    pub fn get(&self, num: RegNum) -> Option<&[u8]> {
        let reg = self.layout.reg(num)?;
        self.available[usize::from(num.0)].then(|| self.bytes_of(reg))
    }

    /// All bytes in table order, with zeros for unavailable registers.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The registers that are unavailable.
    pub(crate) fn unavailable(&self) -> impl Iterator<Item = &'static Reg> {
        self.layout
            .table()
            .iter()
            .zip(&self.available)
            .filter(|(_, available)| !**available)
            .map(|(reg, _)| reg)
    }

    fn bytes_of(&self, reg: &Reg) -> &[u8] {
        &self.bytes[reg.offset..reg.offset + reg.bytes()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout::Aarch64;

    fn num(name: &str) -> RegNum {
        LAYOUT.by_name(name).unwrap().num
    }

    #[test]
    fn a_new_block_has_nothing_available() {
        let block = RegisterBlock::new(LAYOUT);
        assert_eq!(block.unavailable().count(), LAYOUT.table().len());
        assert_eq!(block.get(num("x0")), None);
        assert_eq!(block.get(RegNum(u16::MAX)), None);
    }

    #[test]
    fn every_register_keeps_its_own_value() {
        let mut block = RegisterBlock::new(LAYOUT);
        for reg in LAYOUT.table() {
            let value = vec![u8::try_from(reg.num.0 % 251).unwrap() + 1; reg.bytes()];
            block.set(reg.num, &value);
        }
        for reg in LAYOUT.table() {
            let value = vec![u8::try_from(reg.num.0 % 251).unwrap() + 1; reg.bytes()];
            assert_eq!(block.get(reg.num), Some(&value[..]), "{}", reg.name);
        }
    }

    #[test]
    fn short_values_are_extended_and_wide_zeros_cut() {
        let mut block = RegisterBlock::new(LAYOUT);
        block.set(num("x1"), &[0xff; 8]);
        block.set(num("x1"), &[1, 2]);
        assert_eq!(block.get(num("x1")), Some(&[1, 2, 0, 0, 0, 0, 0, 0][..]));
        block.set_uint(num("cpsr"), 0x1234_u32);
        assert_eq!(block.get(num("cpsr")), Some(&[0x34, 0x12, 0, 0][..]));
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "does not fit cpsr"))]
    fn a_value_that_does_not_fit_is_not_taken() {
        let mut block = RegisterBlock::new(LAYOUT);
        block.set_uint(num("cpsr"), 1_u128 << 32);
        assert_eq!(block.get(num("cpsr")), None);
    }
}
