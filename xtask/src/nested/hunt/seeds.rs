//! The range of seeds to run.

use anyhow::Context as _;
use std::str::FromStr;

/// From the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seeds {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            let number = text.parse::<u64>();
            number.map_err(|err| format!("`{text}` is no number ({err}); give `1..200`, or one"))
        };
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(format!(
                "{last} comes before {first}; give the lower number first"
            ));
        }
        Ok(Self { first, last })
    }
}

impl Seeds {
    pub(super) fn count(self) -> anyhow::Result<usize> {
        let count = usize::try_from(self.last - self.first)?;
        count
            .checked_add(1)
            .context("there are not so many numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_with_both_ends() {
        let seeds: Seeds = "1..200".parse().unwrap();
        assert_eq!((seeds.first, seeds.count().unwrap()), (1, 200));
        let one: Seeds = "7".parse().unwrap();
        assert_eq!((one.first, one.count().unwrap()), (7, 1));
        for wrong in ["", "a..3", "3..", "5..4", "-1..2"] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
        assert!(
            Seeds {
                first: 0,
                last: u64::MAX
            }
            .count()
            .is_err()
        );
    }
}
