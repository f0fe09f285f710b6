//! The breakpoints that the VM refused last, with the reasons. Clients do not show the text of such an error.

use crate::session_log::SessionLog;
use std::collections::VecDeque;
use vmm_core_defs::breakpoint::Breakpoint;

/// The number of refused breakpoints that are kept.
const KEPT: usize = 8;

/// The maximum number of log lines about refused breakpoints in a session, since a client may send such requests
/// without end.
const LOGGED: u32 = 32;

/// The refused breakpoints of a session.
#[derive(Debug)]
pub(crate) struct Refused {
    log: SessionLog,
    /// The last refused breakpoint first.
    last: VecDeque<(Breakpoint, String)>,
    logged: u32,
}

impl Refused {
    pub(crate) fn new(log: SessionLog) -> Self {
        Self {
            log,
            last: VecDeque::new(),
            logged: 0,
        }
    }

    pub(crate) fn add(&mut self, breakpoint: Breakpoint, why: String) {
        let known = |(refused, reason): &(_, _)| *refused == breakpoint && *reason == why;
        if !self.last.iter().any(known) {
            self.log(&breakpoint, &why);
        }
        self.accepted(&breakpoint);
        self.last.push_front((breakpoint, why));
        self.last.truncate(KEPT);
    }

    /// Removes a breakpoint that the VM has accepted now.
    pub(crate) fn accepted(&mut self, breakpoint: &Breakpoint) {
        self.last.retain(|(refused, _)| refused != breakpoint);
    }

    /// The refused breakpoints, with the last one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Breakpoint, String)> {
        self.last.iter()
    }

    fn log(&mut self, breakpoint: &Breakpoint, why: &str) {
        if self.logged < LOGGED {
            self.log.warn(|| tracing::warn!(kind = ?breakpoint.kind, address = %breakpoint.address, why, "a breakpoint was refused"));
        } else if self.logged == LOGGED {
            self.log.warn(|| {
                tracing::warn!(
                    "more breakpoints are refused; this session's are not logged further"
                )
            });
        }
        self.logged = self.logged.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Text;
    use vmm_core_defs::addr::Gva;
    use vmm_core_defs::breakpoint::BreakpointKind;

    fn refused() -> Refused {
        Refused::new(SessionLog::new("10.0.0.1:2"))
    }

    fn at(address: u64) -> Breakpoint {
        Breakpoint {
            kind: BreakpointKind::Execute,
            address: Gva::new(address),
            len: 1,
        }
    }

    #[test]
    fn each_is_logged_with_the_reason_once_and_no_more_than_anybody_reads() {
        let log = Text::of_warnings(|| {
            let mut refused = refused();
            for _ in 0..3 {
                refused.add(at(0x1234), "no room".to_owned());
            }
            for address in 1..200 {
                refused.add(at(address), "no".to_owned());
            }
        });
        assert_eq!(log.matches("0x1234").count(), 1, "{log}");
        let first = log.lines().next().unwrap();
        assert!(first.contains("no room"), "{log}");
        assert!(
            first.contains("session{remote_addr=\"10.0.0.1:2\"}"),
            "{log}"
        );
        assert_eq!(log.matches("a breakpoint was refused").count(), 32, "{log}");
        assert_eq!(log.matches("not logged further").count(), 1, "{log}");
    }

    #[test]
    fn another_reason_is_logged_too() {
        let log = Text::of_warnings(|| {
            let mut refused = refused();
            for why in ["no room", "no page"] {
                refused.add(at(0x1234), why.to_owned());
            }
            refused.add(at(0x5678), "no page".to_owned());
        });
        assert_eq!(log.lines().count(), 3, "{log}");
    }

    #[test]
    fn the_last_ones_are_kept_each_once_and_none_that_was_accepted() {
        let mut refused = refused();
        for address in 0..20 {
            refused.add(at(address), "no".to_owned());
        }
        refused.add(at(15), "not now".to_owned());
        refused.accepted(&at(18));
        let left = refused.iter().map(|(refused, _)| refused.address.value());
        assert_eq!(left.collect::<Vec<_>>(), [15, 19, 17, 16, 14, 13, 12]);
    }
}
