//! The timing that a seed determines. On hardware it differs from run to run.

use crate::soak::next_seed;

/// The timing of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// The number of instructions in a second of the guest's clocks. It determines between which two instructions a timer interrupt falls.
    pub instructions_per_second: u32,
    /// The number of instructions that a CPU executes before the next CPU has its turn.
    pub quantum: u32,
    /// The number of rounds of a loop before the kernel starts, which advance the clocks.
    pub start_delay: u32,
    /// The start of RDRAND, and so of all random choices of the kernel: addresses of programs, the order of free memory.
    pub random: u32,
}

impl Timing {
    /// The timing of a run without a seed.
    const DEFAULT: Self = Self {
        instructions_per_second: 100_000_000,
        quantum: 16,
        start_delay: 0,
        random: 1,
    };

    /// The seed 0 stands for no seed.
    pub(super) fn of(seed: u64) -> Self {
        if seed == 0 {
            return Self::DEFAULT;
        }
        let mut state = seed;
        let mut below = |limit: u32| {
            state = next_seed(state);
            u32::try_from(state % u64::from(limit)).expect("it is below a u32")
        };
        Self {
            // A quarter more or less: the kernel knows CPUs of this speed, and a second in the guest remains about a second.
            instructions_per_second: 75_000_000 + below(50_000_000),
            quantum: 1 + below(32),
            // Up to 10 ms, which is several ticks of the kernel's timer.
            start_delay: below(500_000),
            random: 1 + below(u32::MAX / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_gives_the_same_timing_and_another_one_another() {
        let speeds: BTreeSet<u32> = (0..100)
            .map(|seed| {
                assert_eq!(Timing::of(seed), Timing::of(seed));
                let timing = Timing::of(seed);
                assert!((75_000_000..125_000_000).contains(&timing.instructions_per_second));
                assert!((1..=32).contains(&timing.quantum));
                timing.instructions_per_second
            })
            .collect();
        assert_eq!(speeds.len(), 100);
        let different = |value: fn(Timing) -> u32| {
            let values: BTreeSet<u32> = (1..100).map(|seed| value(Timing::of(seed))).collect();
            values.len()
        };
        assert!(different(|timing| timing.quantum) > 20);
        assert!(different(|timing| timing.start_delay) > 90);
        assert!(different(|timing| timing.random) > 90);
        assert_eq!(Timing::of(0), Timing::DEFAULT);
    }
}
