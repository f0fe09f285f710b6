//! How often VPs have hit each breakpoint, for people who ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointHits;
use vmm_core_defs::breakpoint::MOST_COUNTED;

/// The counts of one breakpoint. VPs count at the same time.
#[derive(Debug, Default)]
pub(crate) struct HitCount {
    stops: AtomicU64,
    evaluations: AtomicU64,
    passes: AtomicU64,
}

/// The counts of all breakpoints that were hit in this session, or that have conditions.
#[derive(Debug, Default)]
pub(crate) struct HitCounts {
    /// By breakpoint: the place in the list, and the counts.
    of: BTreeMap<Breakpoint, (usize, Arc<HitCount>)>,
}

impl HitCounts {
    /// The counts of a breakpoint. If there are [`MOST_COUNTED`] breakpoints, those of another are not kept.
    pub(crate) fn of(&mut self, breakpoint: &Breakpoint) -> Arc<HitCount> {
        if let Some((_, count)) = self.of.get(breakpoint) {
            return count.clone();
        }
        let count = Arc::new(HitCount::default());
        if self.of.len() < MOST_COUNTED {
            let entry = (self.of.len(), count.clone());
            self.of.insert(*breakpoint, entry);
        }
        count
    }

    /// The breakpoints that were hit.
    pub(crate) fn list(&self) -> Vec<BreakpointHits> {
        let mut counted: Vec<_> = self.of.iter().collect();
        counted.sort_unstable_by_key(|(_, (place, _))| *place);
        let hits = counted.into_iter().map(|(breakpoint, (_, count))| {
            let passes = count.passes.load(Relaxed);
            BreakpointHits {
                breakpoint: *breakpoint,
                hits: count.stops.load(Relaxed) + passes,
                evaluations: count.evaluations.load(Relaxed),
                passes,
            }
        });
        hits.filter(|counted| counted.hits != 0).collect()
    }
}

impl HitCount {
    /// A stop was reported.
    pub(crate) fn stopped(&self) {
        self.stops.fetch_add(1, Relaxed);
    }

    /// A condition was evaluated.
    pub(super) fn evaluated(&self) {
        self.evaluations.fetch_add(1, Relaxed);
    }

    /// No condition held.
    pub(super) fn passed(&self) {
        self.passes.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::addr::Gva;
    use vmm_core_defs::breakpoint::BreakpointKind;

    fn at(address: u64) -> Breakpoint {
        Breakpoint {
            kind: BreakpointKind::Software,
            address: Gva::new(address),
            len: 1,
        }
    }

    #[test]
    fn breakpoints_that_were_hit_are_listed_in_their_order() {
        let mut counts = HitCounts::default();
        assert_eq!(counts.list(), []);
        counts.of(&at(3)).stopped();
        counts.of(&at(2)).evaluated();
        let passed = counts.of(&at(1));
        for _ in 0..2 {
            passed.evaluated();
            passed.passed();
        }
        counts.of(&at(3)).stopped();
        counts.of(&at(1)).stopped();
        let hits = |address, hits, evaluations, passes| BreakpointHits {
            breakpoint: at(address),
            hits,
            evaluations,
            passes,
        };
        assert_eq!(counts.list(), [hits(3, 2, 0, 0), hits(1, 3, 2, 2)]);
    }

    #[test]
    fn a_breakpoint_too_many_is_not_counted() {
        let mut counts = HitCounts::default();
        for address in 0..=MOST_COUNTED {
            counts.of(&at(address as u64)).stopped();
        }
        counts.of(&at(0)).stopped();
        let list = counts.list();
        assert_eq!(list.len(), MOST_COUNTED);
        assert_eq!(list[0].hits, 2);
        assert_eq!(
            list.last().map(|last| last.breakpoint),
            Some(at(MOST_COUNTED as u64 - 1))
        );
    }
}
