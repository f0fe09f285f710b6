//! Non-stop mode, on a VM whose VPs stop together: while the client inspects one VP, the others run.
//!
//! Every stop of the VM stops all VPs. The VP with the reason stays stopped, and the others are resumed at once. An operation of the client stops them for as long as
//! the operation takes, because registers and translations are those of stopped VPs. The VM keeps hits that came together (I7): the client learns of each before
//! the VPs run again.

use crate::deadline::CallError;
use crate::error_table::target_error;
use crate::operation::Outcome;
use crate::session::Session;
use crate::session::SessionEnd;
use crate::stop_reply::vp_of;
use crate::vm::Resumed;
use futures::future;
use gdb_frontend::session::Action;
use gdb_frontend::target::Schedule;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::TargetReply;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::vp_set::VpSet;

/// How long a client may take to say that it has seen the guest's end.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// What the VPs do that the client has resumed. All others are stopped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct NonStop {
    running: BTreeMap<VpIndex, VpAction>,
    kept: KeptHits,
    /// Whether the client has resumed a VP. Before it does, no VP runs: a guest that no client has resumed stays as it is (I6).
    begun: bool,
}

/// Whether the VM may have kept hits of VPs that ran until the last stop.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum KeptHits {
    Possible,
    #[default]
    None,
}

impl NonStop {
    /// The client sees this VP stopped, and takes the others for running.
    fn new(stopped: VpIndex, vps: &VpSet) -> Self {
        let others = vps.iter().filter(|vp| *vp != stopped);
        Self {
            running: others.map(|vp| (vp, VpAction::Run)).collect(),
            ..Self::default()
        }
    }

    /// The VM has stopped for this reason. Returns whether the client has to know.
    pub(crate) fn stopped(&mut self, reason: &DebugStopReason) -> bool {
        self.kept = KeptHits::Possible;
        match reason {
            // The server has stopped the VM for itself.
            DebugStopReason::Break => false,
            DebugStopReason::SingleStep { vp }
            | DebugStopReason::Breakpoint { vp, .. }
            | DebugStopReason::Watchpoint { vp, .. } => self.running.remove(vp).is_some(),
            // An event of the whole guest, which the next resume of any VP would carry out.
            _ => {
                self.running.clear();
                true
            }
        }
    }

    /// The guest runs no more.
    pub(crate) fn ended(&mut self) {
        self.running.clear();
    }

    /// VPs that have come run, as their threads do in the client's eyes.
    pub(crate) fn set_vps(&mut self, before: &VpSet, now: &VpSet) {
        self.running.retain(|vp, _| now.contains(*vp));
        let new = now.iter().filter(|vp| !before.contains(*vp));
        self.running.extend(new.map(|vp| (vp, VpAction::Run)));
    }

    /// The resume of the VPs that run. `None` if none does.
    fn request(&self) -> Option<ResumeRequest> {
        if !self.begun {
            return None;
        }
        let actions: Vec<_> = self.running.iter().map(|(vp, it)| (*vp, *it)).collect();
        (!actions.is_empty()).then(|| ResumeRequest::new(VpAction::Stay, actions))
    }

    /// Whether the VP runs, but for the moments in which the server holds it.
    fn runs(&self, vp: VpIndex) -> bool {
        self.begun && self.running.contains_key(&vp)
    }

    fn schedule(&mut self, schedule: &Schedule) {
        for thread in &schedule.stop {
            self.running.remove(&vp_of(*thread));
        }
        self.begun |= !schedule.run.is_empty();
        for (thread, action) in &schedule.run {
            let action = crate::operation::vp_action(*action);
            self.running.insert(vp_of(*thread), action);
        }
    }
}

/// Whether the operation is carried out while VPs run.
fn needs_no_stop(op: &TargetOp) -> bool {
    matches!(
        op,
        TargetOp::ThreadExtraInfo { .. } | TargetOp::Detach | TargetOp::Kill
    )
}

impl Session {
    /// In non-stop mode: carries out the operations of this mode, and stops the VM for those that need it. Returns the operation if it is still to be carried out.
    ///
    /// # Errors
    /// The session has ended.
    pub(crate) async fn prepare(&mut self, op: TargetOp) -> Result<Option<TargetOp>, SessionEnd> {
        if let TargetOp::NonStop(stopped) = op {
            let stopped = stopped.map(vp_of);
            self.link.non_stop = stopped.map(|vp| NonStop::new(vp, &self.link.vps));
            self.complete(Ok(()));
            return Ok(None);
        }
        let Some(non_stop) = &self.link.non_stop else {
            return Ok(Some(op));
        };
        if let TargetOp::ThreadExtraInfo { thread } = op
            && non_stop.runs(vp_of(thread))
        {
            let text = format!("VP {}: running", vp_of(thread));
            self.link
                .complete(Outcome::from(Ok(TargetReply::Text(text))));
            return Ok(None);
        }
        if needs_no_stop(&op) {
            return Ok(Some(op));
        }
        if let Err(error) = self.hold().await? {
            self.complete(Err(target_error(&error)));
            return Ok(None);
        }
        match op {
            TargetOp::Schedule(schedule) => {
                let scheduled = self.schedule(&schedule).await;
                self.complete(scheduled);
                Ok(None)
            }
            op => Ok(Some(op)),
        }
    }

    fn complete(&mut self, result: Result<(), TargetError>) {
        let reply = result.map(|()| TargetReply::Done);
        self.link.complete(Outcome::from(reply));
    }

    async fn schedule(&mut self, schedule: &Schedule) -> Result<(), TargetError> {
        if let Some((thread, address)) = schedule.jump {
            self.guest.jump(thread, address).await?;
        }
        if !schedule.run.is_empty() {
            self.guest.trace.leave_frame();
        }
        if let Some(non_stop) = &mut self.link.non_stop {
            non_stop.schedule(schedule);
        }
        Ok(())
    }

    /// Stops the VM for an operation. The inner error is that of the operation.
    async fn hold(&mut self) -> Result<Result<(), CallError>, SessionEnd> {
        if self.link.is_running()
            && let Err(error) = self.guest.vm.call(DebugRequest::Break, ()).await
            // The resume is answered too if the guest has ended.
            && !error.is_end()
        {
            return Ok(Err(error));
        }
        while self.link.is_running() {
            let no_operation = pin!(future::pending());
            let event = self.link.turn(no_operation);
            match self.deadline.event(event).await {
                Ok(handled) => handled.map(drop)?,
                Err(error) => return Ok(Err(error)),
            }
        }
        self.tell_kept_hits().await;
        Ok(Ok(()))
    }

    /// Hits and ends of steps that came together with the stop: the VM has kept them.
    async fn tell_kept_hits(&mut self) {
        let Some(non_stop) = &mut self.link.non_stop else {
            return;
        };
        if std::mem::take(&mut non_stop.kept) == KeptHits::None {
            return;
        }
        let running: Vec<_> = non_stop.running.keys().copied().collect();
        for vp in running {
            if let Ok(Some(reason)) = self.guest.vm.call(DebugRequest::StopReason, vp).await {
                self.link.stopped_for(&reason);
            }
        }
        if let Some(non_stop) = &mut self.link.non_stop {
            non_stop.kept = KeptHits::None;
        }
    }

    /// In non-stop mode a client says that it has seen the guest's end. Closed before that, GDB takes the connection for lost.
    pub(crate) async fn let_end_be_seen(&mut self) {
        let link = &mut self.link;
        let seen = async {
            while link.frontend.end_is_unseen() {
                match link.incoming.read().await {
                    Ok([]) | Err(_) => return,
                    Ok(bytes) => link.frontend.push(bytes),
                }
                while let Some(Action::Send(bytes)) = link.frontend.poll_action() {
                    link.outgoing.queue(bytes);
                }
                if link.outgoing.flush().await.is_err() {
                    return;
                }
            }
        };
        let _ = self.deadline.within(PATIENCE_AT_END, seen).await;
    }

    /// In non-stop mode: after a stop or an operation, the VPs run that the client has not stopped.
    pub(crate) async fn run_the_others(&mut self) {
        while self.link.non_stop.is_some() && !self.link.is_running() {
            self.tell_kept_hits().await;
            let request = self.link.non_stop.as_ref().and_then(NonStop::request);
            let Some(request) = request else { return };
            self.guest.has_run();
            let resumed = self.guest.vm.resume(request).await;
            self.link
                .resumed(resumed.unwrap_or_else(|error| Resumed::Over(Err(error))));
        }
    }
}

#[cfg(test)]
mod tests;
