//! Guest RAM: where it is, and how much.

use crate::arch::x86_64::layout;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// An amount of guest RAM: a whole number of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemorySize(u64);

/// A part of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it is for.
    pub kind: RegionKind,
}

/// What a region is for, with the numbers of ACPI's address ranges (ACPI 6.4, table 15-374), which PVH and Linux share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegionKind {
    /// The kernel's to use.
    Ram = 1,
    /// Not the kernel's.
    Reserved = 2,
}

/// RAM that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MemoryError {
    /// Not a number with a unit.
    #[error("`{0}` is no amount of memory; write a number with K, M or G, such as 512M")]
    Malformed(String),
    /// Less than the loader itself needs.
    #[error("{0} is too little memory; the least is {least}", least = MemorySize::LEAST)]
    TooLittle(MemorySize),
    /// More than a guest can have.
    #[error("{0} is too much memory; the most is {most}", most = MemorySize::MOST)]
    TooMuch(MemorySize),
    /// The host has not that much.
    #[error("the host cannot give the guest {size} of memory: {why}; use a smaller --memory")]
    Refused {
        /// What was asked for.
        size: MemorySize,
        /// What the host said.
        why: String,
    },
}

impl MemorySize {
    /// The legacy megabyte and something to run in.
    const LEAST: Self = Self(2 << 20);
    /// What 40 physical address bits hold, which every host has, with room for the hole.
    const MOST: Self = Self(512 << 30);
    const PAGE: u64 = 4096;

    /// In bytes.
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }

    /// The least whole number of MiB that holds so many bytes.
    pub(crate) const fn holding(bytes: u64) -> Self {
        Self(bytes.div_ceil(1 << 20) << 20)
    }

    /// RAM ranges, first address and length in bytes, around the hole for devices below 4 GiB.
    pub(crate) fn ranges(self) -> Vec<(u64, u64)> {
        let low = self.0.min(layout::DEVICE_HOLE_START);
        let mut ranges = vec![(0, low)];
        if self.0 > low {
            ranges.push((layout::DEVICE_HOLE_END, self.0 - low));
        }
        ranges
    }

    /// The memory map as kernels are told it.
    pub(crate) fn map(self) -> Vec<Region> {
        let mut map = vec![
            Region {
                start: 0,
                len: layout::LOW_RAM_END,
                kind: RegionKind::Ram,
            },
            Region {
                start: layout::LOW_RAM_END,
                len: layout::HIGH_RAM_START - layout::LOW_RAM_END,
                kind: RegionKind::Reserved,
            },
        ];
        for (start, len) in self.ranges() {
            let skipped = layout::HIGH_RAM_START.saturating_sub(start);
            map.push(Region {
                start: start + skipped,
                len: len - skipped,
                kind: RegionKind::Ram,
            });
        }
        map
    }

    /// Reserves the RAM; the host provides its pages as they are first used.
    pub(crate) fn allocate(self) -> Result<GuestMemoryMmap, MemoryError> {
        let refused = |why: String| MemoryError::Refused { size: self, why };
        let ranges: Vec<(GuestAddress, usize)> = self
            .ranges()
            .into_iter()
            .map(|(start, len)| Ok((GuestAddress(start), usize::try_from(len)?)))
            .collect::<Result<_, std::num::TryFromIntError>>()
            .map_err(|error| refused(error.to_string()))?;
        GuestMemoryMmap::from_ranges(&ranges).map_err(|error| refused(error.to_string()))
    }
}

/// `512M`, `2G`, `65536K`; a bare number is MiB.
impl FromStr for MemorySize {
    type Err = MemoryError;

    fn from_str(text: &str) -> Result<Self, MemoryError> {
        let malformed = || MemoryError::Malformed(text.to_owned());
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text[digits.len()..]
            .to_ascii_uppercase()
            .trim_end_matches("IB")
            .trim_end_matches('B')
        {
            "K" => 10,
            "" | "M" => 20,
            "G" => 30,
            _ => return Err(malformed()),
        };
        let number: u64 = digits.parse().map_err(|_| malformed())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(malformed)?;
        match Self(bytes.next_multiple_of(Self::PAGE)) {
            size if size < Self::LEAST => Err(MemoryError::TooLittle(size)),
            size if size > Self::MOST => Err(MemoryError::TooMuch(size)),
            size => Ok(size),
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes.is_multiple_of(1 << 20) => write!(f, "{} MiB", bytes >> 20),
            bytes => write!(f, "{} KiB", bytes >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_every_unit() {
        for (text, bytes) in [
            ("512M", 512 << 20),
            ("2g", 2 << 30),
            ("4096K", 4 << 20),
            ("64", 64 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(
                text.parse::<MemorySize>().map(MemorySize::bytes),
                Ok(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_what_to_write() {
        for text in [
            "",
            "M",
            "12Q",
            "-1M",
            "1.5G",
            "99999999999999999999G",
            "18446744073709551615G",
        ] {
            let error = text.parse::<MemorySize>().expect_err(text);
            assert!(
                error.to_string().contains("such as 512M"),
                "{text}: {error}"
            );
        }
        assert!(matches!(
            "1M".parse::<MemorySize>(),
            Err(MemoryError::TooLittle(_))
        ));
        assert!(matches!(
            "513G".parse::<MemorySize>(),
            Err(MemoryError::TooMuch(_))
        ));
        assert!(matches!(
            "0".parse::<MemorySize>(),
            Err(MemoryError::TooLittle(_))
        ));
    }

    #[test]
    fn large_memory_goes_around_the_device_hole() {
        let size: MemorySize = "5G".parse().expect("an amount");
        assert_eq!(size.ranges(), [(0, 3 << 30), (4 << 30, 2 << 30)]);
        let size: MemorySize = "3G".parse().expect("an amount");
        assert_eq!(size.ranges(), [(0, 3 << 30)]);
    }
}
