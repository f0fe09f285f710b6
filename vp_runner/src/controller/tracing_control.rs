//! The controller's part of tracepoints: arming them, and taking them out of the guest when their trace is over.

use super::Controller;
use super::breakpoint_control::BreakpointControl;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Trace;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::trace::TraceStart;

const fn tracepoint(address: Gva) -> Breakpoint {
    Breakpoint {
        kind: BreakpointKind::Trace,
        address,
        len: 1,
    }
}

/// The error for a change of a tracepoint that comes as one of a breakpoint.
pub(super) fn is_no_breakpoint(changes: &[BreakpointChange]) -> Option<DebugError> {
    changes.iter().find_map(|change| match change {
        BreakpointChange::Insert(breakpoint) | BreakpointChange::Remove(breakpoint)
            if breakpoint.kind == BreakpointKind::Trace =>
        {
            let Breakpoint { address, len, .. } = *breakpoint;
            Some(DebugError::BadBreakpoint { address, len })
        }
        _ => None,
    })
}

impl Controller {
    pub(super) async fn start_trace(&mut self, start: TraceStart) -> Result<(), DebugError> {
        self.state.check_stopped()?;
        self.breakpoint_control.drop_tracepoints().await;
        let trace = self.breakpoint_control.breakpoints().trace.clone();
        let started = self.arm_tracepoints(start).await;
        match started {
            Ok(()) => trace.run(),
            Err(_) => trace.forget(),
        }
        started
    }

    async fn arm_tracepoints(&mut self, start: TraceStart) -> Result<(), DebugError> {
        let trace = self.breakpoint_control.breakpoints().trace.clone();
        let by_address = trace.prepare(start)?;
        let inserts = by_address.keys().copied().map(tracepoint);
        let inserts: Vec<_> = inserts.map(BreakpointChange::Insert).collect();
        self.find_locations().await;
        if self.breakpoint_control.needs_register(&inserts) {
            self.leave_to_guest().await;
        }
        self.breakpoint_control.apply(&inserts).await?;
        self.breakpoint_control.traces = !inserts.is_empty();
        let control = &self.breakpoint_control;
        let mut breakpoints = control.change();
        for (address, points) in by_address {
            let breakpoint = tracepoint(address);
            let executes = !control.is_carried_out(&breakpoints, &breakpoint);
            let Breakpoints {
                table,
                conditions,
                counts,
                output,
                ..
            } = &mut *breakpoints;
            conditions.trace(breakpoint, points, counts, output);
            table.pass_by_executing(&breakpoint, executes);
        }
        Ok(())
    }

    /// # Errors
    /// [`DebugError::NotAttached`].
    pub(super) fn with_trace<R>(&self, act: impl FnOnce(&Trace) -> R) -> Result<R, DebugError> {
        self.state.check_attached()?;
        let trace = self.breakpoint_control.breakpoints().trace.clone();
        Ok(act(&trace))
    }
}

impl BreakpointControl {
    /// Whether tracepoints are armed although their trace is over.
    pub(super) fn has_idle_tracepoints(&self) -> bool {
        self.traces && !self.breakpoints().trace.is_running()
    }

    /// Removes the tracepoints of a trace that is over. Every VP is parked.
    pub(super) async fn drop_idle_tracepoints(&mut self) {
        if self.has_idle_tracepoints() {
            self.drop_tracepoints().await;
        }
    }

    async fn drop_tracepoints(&mut self) {
        let traced = self.breakpoints().table.traced();
        let removes: Vec<_> = traced.into_iter().map(BreakpointChange::Remove).collect();
        if let Err(err) = self.apply(&removes).await {
            tracing::error!(error = %err, "a tracepoint could not be removed");
        }
        self.traces = false;
    }
}
