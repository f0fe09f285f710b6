//! Breakpoints and how they are armed, as text for people.

use std::fmt::Write as _;
use vmm_core_defs::breakpoint::Arming;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointHits;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::breakpoint::BreakpointStatus;
use vmm_core_defs::breakpoint::Pending;

/// One line for each breakpoint.
pub(super) fn list(breakpoints: &[BreakpointStatus]) -> String {
    let mut text = String::new();
    for status in breakpoints {
        let BreakpointStatus {
            breakpoint, arming, ..
        } = status;
        let kind = kind_name(breakpoint.kind);
        let address = breakpoint.address;
        let _ = write!(text, "{address}  {kind:8}  ");
        let _ = writeln!(text, "{}", how_armed(arming));
    }
    if text.is_empty() {
        text.push_str(
            "No breakpoint is set. (GDB inserts its breakpoints when it resumes the guest, and removes them at a stop.)\n",
        );
    }
    text
}

/// How a breakpoint is armed, or why it is not.
pub(crate) fn how_armed(arming: &Arming) -> String {
    match arming {
        Arming::Memory { gpa } => format!("in memory, physical {gpa}"),
        Arming::DebugRegister { number, why: None } => format!("debug register {number}"),
        Arming::DebugRegister {
            number,
            why: Some(why),
        } => format!("debug register {number}, as {why}"),
        Arming::Pending { why } => format!("NOT ARMED: {}", not_armed(*why)),
        other => format!("armed in a way that this debug server does not know: {other:?}"),
    }
}

/// How often the breakpoints were hit. Empty if none was.
pub(super) fn hits(counted: &[BreakpointHits]) -> String {
    let mut text = String::new();
    for of in counted {
        if text.is_empty() {
            text.push_str(
                "Hits since the client attached, also of breakpoints that are removed now:\n",
            );
        }
        let Breakpoint { kind, address, .. } = of.breakpoint;
        let _ = write!(text, "{address}  {:8}  {} ", kind_name(kind), of.hits);
        text.push_str(if of.hits == 1 { "hit" } else { "hits" });
        if of.passes != 0 || of.evaluations != 0 {
            let _ = write!(text, ", of which {} did not stop", of.passes);
        }
        if of.evaluations != 0 {
            let _ = write!(text, "; {} conditions were evaluated", of.evaluations);
        }
        text.push('\n');
    }
    text
}

fn not_armed(why: Option<Pending>) -> String {
    match why {
        None => "it has not been armed yet".to_owned(),
        Some(why @ Pending::Reset) => {
            format!("{why}; the breakpoint is armed when the guest runs")
        }
        Some(why @ Pending::GuestHasRegisters) => {
            format!(
                "{why}; the breakpoint is armed when the guest removes one of its breakpoints, or when you `delete` another breakpoint"
            )
        }
        Some(why) => format!("{why}, and no debug register is free"),
    }
}

pub(crate) const fn kind_name(kind: BreakpointKind) -> &'static str {
    match kind {
        BreakpointKind::Software => "software",
        BreakpointKind::Execute => "hardware",
        BreakpointKind::Write => "write",
        BreakpointKind::Read => "read",
        BreakpointKind::ReadWrite => "access",
        BreakpointKind::Trace => "trace",
        _ => "unknown",
    }
}

/// The breakpoints that were refused last, with the reasons. Empty if none was refused.
pub(super) fn refused<'a>(last: impl Iterator<Item = &'a (Breakpoint, String)>) -> String {
    let mut text = String::new();
    let mut before = None;
    for (Breakpoint { kind, address, len }, why) in last {
        if text.is_empty() {
            text.push_str("Refused breakpoints, with the last one first:\n");
        }
        let kind = kind_name(*kind);
        let shown = match before.replace(why) == Some(why) {
            true => "the same reason",
            false => why,
        };
        let _ = writeln!(text, "{address}  {kind:8}  length {len}: {shown}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::addr::Gpa;
    use vmm_core_defs::addr::Gva;

    #[test]
    fn a_reason_of_several_refused_breakpoints_in_a_row_is_written_once() {
        let at = |address| Breakpoint {
            kind: BreakpointKind::Write,
            address: Gva::new(address),
            len: 8,
        };
        let last = [(at(1), "no".to_owned()), (at(2), "no".to_owned())];
        let text = refused(last.iter());
        assert!(
            text.ends_with(
                "0x1  write     length 8: no\n0x2  write     length 8: the same reason\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn hits_are_listed_with_what_conditions_made_of_them() {
        let of = |hits, evaluations, passes| BreakpointHits {
            breakpoint: Breakpoint {
                kind: BreakpointKind::Execute,
                address: Gva::new(0x1000),
                len: 1,
            },
            hits,
            evaluations,
            passes,
        };
        assert_eq!(hits(&[]), "");
        assert_eq!(
            hits(&[of(1, 0, 0), of(20, 30, 15), of(3, 0, 3)]),
            "Hits since the client attached, also of breakpoints that are removed now:\n\
             0x1000  hardware  1 hit\n\
             0x1000  hardware  20 hits, of which 15 did not stop; 30 conditions were evaluated\n\
             0x1000  hardware  3 hits, of which 3 did not stop\n"
        );
    }

    #[test]
    fn breakpoints_are_listed_with_what_stands_for_them() {
        let breakpoint = |kind| Breakpoint {
            kind,
            address: Gva::new(0x1000),
            len: 1,
        };
        let status = |kind, arming| BreakpointStatus::new(breakpoint(kind), arming);
        let register = |why| Arming::DebugRegister { number: 2, why };
        let why = Pending::NoRam;
        let waits = |why| status(BreakpointKind::Software, Arming::Pending { why });
        let text = list(&[
            status(
                BreakpointKind::Software,
                Arming::Memory {
                    gpa: Gpa::new(0x5000),
                },
            ),
            status(BreakpointKind::Execute, register(None)),
            status(BreakpointKind::Software, register(Some(why))),
            waits(Some(why)),
            waits(Some(Pending::Reset)),
            waits(Some(Pending::GuestHasRegisters)),
            waits(None),
        ]);
        assert_eq!(
            text,
            "0x1000  software  in memory, physical 0x5000\n\
             0x1000  hardware  debug register 2\n\
             0x1000  software  debug register 2, as no writable RAM is there\n\
             0x1000  software  NOT ARMED: no writable RAM is there, and no debug register is free\n\
             0x1000  software  NOT ARMED: the guest was reset; the breakpoint is armed when the guest runs\n\
             0x1000  software  NOT ARMED: the guest uses the debug registers for breakpoints of its own; the breakpoint is armed when the guest removes \
             one of its breakpoints, or when you `delete` another breakpoint\n\
             0x1000  software  NOT ARMED: it has not been armed yet\n"
        );
        assert!(list(&[]).starts_with("No breakpoint is set"));
    }
}
