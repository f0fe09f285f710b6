//! The remaining count of a local APIC's timer (one-shot or periodic) in the register page of `KVM_GET_LAPIC`, and how to write the count back (SDM volume 3,
//! "APIC Timer"). Pure.

use kvm_bindings::kvm_lapic_state;

const LVT_TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;
/// Bits 17 and 18 of the LVT entry.
const MODE: u32 = 0b11 << 17;
const ONE_SHOT: u32 = 0;
const PERIODIC: u32 = 1 << 17;

/// The remaining count of the timer when the stop began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountLeft(u32);

impl CountLeft {
    /// Reads the count from a page that was read `late` nanoseconds after the stop began. `None` if the timer does not count, or has expired since.
    ///
    /// KVM counts nanoseconds (its bus runs at 1 GHz).
    pub(crate) fn read(page: &kvm_lapic_state, late: u64) -> Option<Self> {
        let mode = word(page, LVT_TIMER) & MODE;
        let (left, initial) = (word(page, CURRENT_COUNT), word(page, INITIAL_COUNT));
        if !matches!(mode, ONE_SHOT | PERIODIC) || left == 0 {
            return None;
        }
        let counted = u32::try_from(late / u64::from(divisor(page))).unwrap_or(u32::MAX);
        match (left.saturating_add(counted), mode) {
            // The timer has expired and restarted meanwhile, and its interrupt is pending.
            (then, PERIODIC) if then > initial => Some(Self(left)),
            (then, _) => Some(Self(then.min(initial))),
        }
    }

    /// Writes the count into a page, and leaves the rest of the page unchanged.
    pub(crate) fn write(self, page: &mut kvm_lapic_state) {
        for (at, byte) in page.regs[CURRENT_COUNT..]
            .iter_mut()
            .zip(self.0.to_le_bytes())
        {
            *at = i8::from_le_bytes([byte]);
        }
    }
}

/// The divisor of the bus clock, 1 to 128, from three bits that are not adjacent.
fn divisor(page: &kvm_lapic_state) -> u32 {
    let register = word(page, DIVIDE);
    let shift = (register & 0b11 | register >> 1 & 0b100) + 1;
    1 << (shift & 0b111)
}

fn word(page: &kvm_lapic_state, offset: usize) -> u32 {
    let bytes = std::array::from_fn(|n| page.regs[offset + n].to_le_bytes()[0]);
    u32::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(mode: u32, left: u32, initial: u32, divide: u32) -> kvm_lapic_state {
        let mut page = kvm_lapic_state::default();
        for (offset, value) in [
            (LVT_TIMER, mode | 0xef),
            (CURRENT_COUNT, left),
            (INITIAL_COUNT, initial),
            (DIVIDE, divide),
        ] {
            for (n, byte) in value.to_le_bytes().into_iter().enumerate() {
                page.regs[offset + n] = i8::from_le_bytes([byte]);
            }
        }
        page
    }

    #[test]
    fn what_it_counted_since_the_stop_is_given_back() {
        // Divided by 16: 1600 ns are 100 counts.
        let page = page(ONE_SHOT, 500, 1000, 0b0011);
        assert_eq!(CountLeft::read(&page, 1600), Some(CountLeft(600)));
        assert_eq!(CountLeft::read(&page, u64::MAX), Some(CountLeft(1000)));
    }

    #[test]
    fn a_period_that_ended_since_is_not_counted_twice() {
        let page = page(PERIODIC, 900, 1000, 0b1011);
        assert_eq!(CountLeft::read(&page, 50), Some(CountLeft(950)));
        assert_eq!(CountLeft::read(&page, 200), Some(CountLeft(900)));
    }

    #[test]
    fn timers_that_do_not_count_are_left_alone() {
        const DEADLINE: u32 = 1 << 18;
        assert_eq!(CountLeft::read(&page(DEADLINE, 5, 9, 0), 0), None);
        assert_eq!(CountLeft::read(&page(ONE_SHOT, 0, 9, 0), 0), None);
    }

    #[test]
    fn divisors_are_as_the_manual_has_them() {
        let of = |register| divisor(&page(ONE_SHOT, 1, 1, register));
        let all = [0, 1, 2, 3, 8, 9, 10, 11].map(of);
        assert_eq!(all, [2, 4, 8, 16, 32, 64, 128, 1]);
    }

    #[test]
    fn only_the_current_count_is_written() {
        let before = page(PERIODIC, 1, 0x0102_0304, 0b1011);
        let mut after = before;
        CountLeft(0xf1f2_f3f4).write(&mut after);
        assert_eq!(word(&after, CURRENT_COUNT), 0xf1f2_f3f4);
        CountLeft(1).write(&mut after);
        assert_eq!(after.regs[..], before.regs[..]);
    }
}
