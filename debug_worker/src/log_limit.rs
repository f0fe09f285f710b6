//! A limit for log lines that a client can cause as often as it likes: the first few lines are written, then one line
//! per period with the number of lines left out.

use pal_async::timer::Instant;
use std::fmt;
use std::time::Duration;

/// The number of lines that may be written at once.
const BURST: u32 = 5;

/// The time after which one more line may be written.
const PERIOD: Duration = Duration::from_secs(10);

/// The limit for the lines of one kind.
#[derive(Debug)]
pub(crate) struct LogLimit {
    /// The number of lines that may be written now.
    left: u32,
    /// The time at which `left` was last increased.
    refilled: Instant,
    left_out: u64,
}

/// The number of lines that were left out since the last line. Its text is appended to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (and one more like this since the last line)"),
            count => write!(f, " (and {count} more like this since the last line)"),
        }
    }
}

impl LogLimit {
    pub(crate) fn new() -> Self {
        Self {
            left: BURST,
            refilled: Instant::now(),
            left_out: 0,
        }
    }

    /// Returns the number of lines left out if a line may be written now. Otherwise counts the line as left out.
    pub(crate) fn admit(&mut self) -> Option<LeftOut> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&mut self, now: Instant) -> Option<LeftOut> {
        let periods = now.saturating_duration_since(self.refilled).as_nanos() / PERIOD.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(periods).min(BURST);
        self.refilled += PERIOD * periods;
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        if self.left == BURST {
            self.refilled = now;
        }
        self.left -= 1;
        Some(LeftOut(std::mem::take(&mut self.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_a_day_is_some_thousand_lines_and_none_is_uncounted() {
        let start = Instant::now();
        let mut limit = LogLimit::new();
        let (mut written, mut left_out, mut lines) = (0_u64, 0, 0);
        // One line every 10 ms for a day.
        for step in 0..8_640_000_u64 {
            lines += 1;
            if let Some(LeftOut(count)) =
                limit.admit_at(start + Duration::from_millis(10) * u32::try_from(step).unwrap())
            {
                written += 1;
                left_out += count;
                assert_eq!(written + left_out, lines, "a line nobody heard of");
            }
        }
        assert!((8_600..8_700).contains(&written), "{written} lines");
    }

    #[test]
    fn what_happens_seldom_is_always_told() {
        let start = Instant::now();
        let mut limit = LogLimit::new();
        for step in 0..100 {
            assert_eq!(limit.admit_at(start + PERIOD * step), Some(LeftOut(0)));
        }
        let quiet = start + PERIOD * 1000;
        let told = (0..20).filter_map(|_| limit.admit_at(quiet)).count();
        assert_eq!(told, BURST as usize);
    }

    /// One line in each period, at any time within the period.
    #[test]
    fn what_is_left_of_a_period_counts() {
        let start = Instant::now();
        let mut limit = LogLimit::new();
        let mut told = |at| limit.admit_at(start + PERIOD * at / 10).is_some();
        for _ in 0..BURST {
            assert!(told(0));
        }
        let told: Vec<_> = [9, 19, 21, 29, 31].map(&mut told).into();
        assert_eq!(told, [false, true, true, false, true]);
    }

    #[test]
    fn the_first_line_of_all_is_told() {
        assert_eq!(LogLimit::new().admit(), Some(LeftOut(0)));
    }

    #[test]
    fn the_line_says_how_many_are_missing() {
        let line = |count| format!("refused{}", LeftOut(count));
        assert_eq!(line(0), "refused");
        assert!(line(7).ends_with("(and 7 more like this since the last line)"));
    }
}
