//! Guest RAM: its size and its addresses.

use crate::arch::x86_64::layout;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

/// A size of guest RAM: a whole number of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MemorySize(u64);

/// A part of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// The first address.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
    /// The use of the region.
    pub kind: RegionKind,
}

/// The use of a region. The numbers are those of ACPI's address ranges (ACPI 6.4, table 15-374), which PVH and Linux
/// use too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegionKind {
    /// RAM that the kernel may use.
    Ram = 1,
    /// Addresses that the kernel must not use.
    Reserved = 2,
}

/// The reason why the guest cannot have this RAM.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MemoryError {
    /// The text is not a number with a unit.
    #[error("`{0}` is not a memory size; write a number with K, M or G, such as 512M")]
    Malformed(String),
    /// The size is less than the loader itself needs.
    #[error("{0} is too little memory; the minimum is {least}", least = MemorySize::LEAST)]
    TooLittle(MemorySize),
    /// The size is more than a guest can have.
    #[error("{0} is too much memory; the maximum is {most}", most = MemorySize::MOST)]
    TooMuch(MemorySize),
    /// The host could not allocate the RAM.
    #[error("the host cannot give the guest {size} of memory: {why}; use a smaller --memory")]
    Refused {
        /// The requested size.
        size: MemorySize,
        /// The host's error.
        why: String,
    },
}

impl MemorySize {
    /// The first MiB for legacy devices, and one MiB for the kernel.
    const LEAST: Self = Self(2 << 20);
    /// The size that fits in 40 physical address bits, which every host supports, besides the device hole.
    const MOST: Self = Self(512 << 30);
    const PAGE: u64 = 4096;

    /// The size in bytes.
    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }

    /// The smallest whole number of MiB that contains `bytes`.
    pub(crate) const fn holding(bytes: u64) -> Self {
        Self(bytes.div_ceil(1 << 20) << 20)
    }

    /// The RAM ranges around the device hole below 4 GiB: first address and length in bytes.
    pub(crate) fn ranges(self) -> Vec<(u64, u64)> {
        let low = self.0.min(layout::DEVICE_HOLE_START);
        let mut ranges = vec![(0, low)];
        if self.0 > low {
            ranges.push((layout::DEVICE_HOLE_END, self.0 - low));
        }
        ranges
    }

    /// The memory map for the kernel.
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

    /// Reserves the RAM. The host provides a page at its first use.
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

/// Parses `512M`, `2G` or `65536K`. A number without a unit is in MiB.
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
