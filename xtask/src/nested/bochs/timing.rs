//! What a seed chooses: all that differs from one run to another on hardware, and here only with the seed.

use crate::soak::next_seed;

/// When things happen inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    /// How many instructions make a second of the guest's clocks: between which two of them a timer interrupt falls.
    pub instructions_per_second: u32,
    /// Instructions that a CPU executes before the next one has its turn.
    pub quantum: u32,
    /// Rounds of a loop before the kernel starts: the clocks are that much further then.
    pub start_delay: u32,
    /// For RDRAND, and so for all that the kernel chooses at random: addresses of programs, the order of free memory.
    pub random: u32,
}

impl Timing {
    /// Of a run without a seed.
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
            // A quarter up or down: a guest second stays one, and the kernel knows CPUs of this speed.
            instructions_per_second: 75_000_000 + below(50_000_000),
            quantum: 1 + below(32),
            // Up to 10 ms, some ticks of the kernel's timer.
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
