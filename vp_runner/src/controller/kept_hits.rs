//! Hits that are not reported yet, and the breakpoints that may have changed since.

use crate::breakpoints::Breakpoints;
use vmm_core_defs::stop::DebugStopReason;

/// The present stop reason of a hit that is not reported yet (I7). `None` if its breakpoint is gone, or if the breakpoint has got other conditions: the VP meets it again and
/// evaluates them. The instruction of a watchpoint has executed, so its hit stays.
pub(super) fn still_hit(
    breakpoints: &Breakpoints,
    reason: DebugStopReason,
) -> Option<DebugStopReason> {
    let Breakpoints {
        table, conditions, ..
    } = breakpoints;
    match reason {
        DebugStopReason::Breakpoint { vp, breakpoint } => table
            .still_hit(&breakpoint)
            .filter(|breakpoint| !conditions.are_others_now(breakpoint))
            .map(|breakpoint| DebugStopReason::Breakpoint { vp, breakpoint }),
        DebugStopReason::Watchpoint {
            vp,
            breakpoint,
            address,
        } => table
            .still_hit(&breakpoint)
            .map(|breakpoint| DebugStopReason::Watchpoint {
                vp,
                breakpoint,
                address,
            }),
        other => Some(other),
    }
}
