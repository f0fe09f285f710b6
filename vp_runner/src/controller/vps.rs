//! The VPs as the controller sees them.

mod start;

pub(crate) use start::AddedVp;
pub(crate) use start::KvmVps;
pub(crate) use start::VpShared;

use super::unanswered::Unanswered;
use crate::arch::Snapshots;
use crate::arch::VpState;
use crate::control::enter::Enter;
use crate::control::enter::Snapshot;
use crate::control::run_gate::Kick;
use crate::control::run_gate::RunGate;
use crate::hook::Call;
use crate::hook::Command;
use crate::hook::ParkedVp;
use crate::hook::link::NotTaken;
use crate::hook::link::VpLink;
use futures::FutureExt;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::Unsupported;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::vp_set::VpSet;

/// A VP in the guest answers a kick within a millisecond, one on a busy host within some.
const SOON: Duration = Duration::from_millis(200);

/// All VP threads. Dropping this ends them.
pub(super) struct Vps {
    threads: Vec<VpThread>,
    /// Those that have not gone.
    set: VpSet,
}

/// The thread of one VP, as the controller sees it.
pub(super) struct VpThread {
    gate: Arc<RunGate>,
    link: Box<dyn VpLink>,
    snapshot: Snapshots,
    /// [`Snapshot::Ahead`] if the client has read registers since the last stop, because the client will probably read them again after the next stop.
    looked_at: Snapshot,
    /// The kick, until the VP parks.
    kicked: Option<Unanswered>,
    presence: Presence,
}

/// Whether the vCPU exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    /// The vCPU has gone, or has not come yet. Its index stays.
    Gone,
}

impl Vps {
    /// VPs that exist already.
    pub(super) fn of(threads: Vec<VpThread>) -> Self {
        let set = VpSet::first(u32::try_from(threads.len()).unwrap_or(u32::MAX));
        Self { threads, set }
    }

    /// A vCPU has registered. A vCPU that has gone may come back. vCPUs with smaller indexes may come later.
    pub(super) fn join(&mut self, vp: VpIndex, thread: VpThread) {
        let position = vp.index() as usize;
        while self.threads.len() <= position {
            self.threads.push(VpThread::absent());
        }
        self.threads[position] = thread;
        self.update_set();
    }

    /// The vCPU has gone.
    pub(super) fn leave(&mut self, vp: VpIndex) {
        if let Some(vp) = self.threads.get_mut(vp.index() as usize) {
            vp.presence = Presence::Gone;
            vp.kicked = None;
        }
        self.update_set();
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.threads.len()).unwrap_or(u32::MAX)
    }

    /// The VPs that have not gone.
    pub(super) fn set(&self) -> VpSet {
        self.set.clone()
    }

    fn update_set(&mut self) {
        let threads = (0..).map(VpIndex::new).zip(&self.threads);
        let here = threads.filter(|(_, vp)| vp.presence == Presence::Here);
        self.set = here.map(|(index, _)| index).collect();
    }

    /// The VPs whose threads the VMM has.
    pub(super) fn held_by_vmm(&self) -> Vec<VpIndex> {
        let threads = (0..).map(VpIndex::new).zip(&self.threads);
        let held = threads.filter(|(_, vp)| vp.link.is_held_by_vmm());
        held.map(|(index, _)| index).collect()
    }

    /// Whether the VMM has the thread of the VP, and keeps it.
    pub(super) fn is_held_by_vmm(&self, vp: VpIndex) -> bool {
        self.thread(vp).is_ok_and(|vp| vp.link.is_kept_by_vmm())
    }

    /// # Errors
    /// [`DebugError::NoSuchVp`].
    pub(super) fn check(&self, vp: VpIndex) -> Result<(), DebugError> {
        self.thread(vp).map(drop)
    }

    fn thread(&self, vp: VpIndex) -> Result<&VpThread, DebugError> {
        let count = self.count();
        let thread = self.threads.get(vp.index() as usize);
        let here = thread.filter(|thread| thread.presence == Presence::Here);
        here.ok_or(DebugError::NoSuchVp { vp, count })
    }

    /// Brings the VP out of the guest, or keeps the VP from entering (I4). The VP then parks.
    pub(super) fn kick(&mut self, vp: VpIndex) {
        if let Some(vp) = self.threads.get_mut(vp.index() as usize) {
            vp.kicked = Some(Unanswered::new(Instant::now(), SOON));
            vp.kick();
        }
    }

    /// The VP has parked.
    pub(super) fn answered(&mut self, vp: VpIndex) {
        if let Some(vp) = self.threads.get_mut(vp.index() as usize) {
            vp.kicked = None;
        }
    }

    /// Repeats and logs kicks that are overdue. Returns whether a kicked VP has not parked yet.
    pub(super) fn repeat_overdue_kicks(&mut self) -> bool {
        let now = Instant::now();
        for (index, vp) in (0..).map(VpIndex::new).zip(&mut self.threads) {
            let Some(waited) = vp.kicked.as_mut().and_then(|kick| kick.overdue(now)) else {
                continue;
            };
            match vp.gate.is_in_guest() {
                true => {
                    tracing::warn!(vp = %index, ?waited, "a VP has not left the guest for its kick, which is sent again; this is harmless on a busy host, and a fault if it goes on for seconds");
                    vp.link.kick_again();
                }
                // The VP does not enter the guest, and parks when the VMM's code returns.
                false => tracing::warn!(
                    vp = %index,
                    ?waited,
                    "a VP does not stop yet, because its thread is busy outside the guest: with a call of a device that has not returned, or because the VMM has paused the VM; the VP stops when its thread comes back"
                ),
            }
        }
        self.threads.iter().any(|vp| vp.kicked.is_some())
    }

    /// Makes a VP leave the guest for a moment and read the guest's debug registers. The VP enters again by itself.
    pub(super) fn read_guest_registers(&self, vp: VpIndex) {
        if let Ok(vp) = self.thread(vp)
            && vp.gate.is_in_guest()
        {
            vp.link.kick(Kick::Signal);
        }
    }

    /// Enters the parked VP. The VP parks once.
    pub(super) fn enter(
        &mut self,
        vp: VpIndex,
        enter: impl FnOnce(Snapshot) -> Enter,
    ) -> Result<(), DebugError> {
        self.check(vp)?;
        let thread = &mut self.threads[vp.index() as usize];
        thread.gate.clear();
        thread.kicked = None;
        let looked_at = std::mem::replace(&mut thread.looked_at, Snapshot::OnDemand);
        let sent = thread.link.command(Command::Enter(enter(looked_at)));
        sent.map_err(|why| not_taken(vp, why))
    }

    /// Calls `call` with a parked VP, and waits for the result. Also while the VMM has the thread of the VP.
    ///
    /// # Errors
    /// The error of `call`; [`DebugError::NoSuchVp`]; [`DebugError::VpThreadEnded`].
    pub(super) async fn call<R: Send + 'static>(
        &self,
        vp: VpIndex,
        call: impl FnOnce(&mut dyn ParkedVp) -> Result<R, DebugError> + Send + 'static,
    ) -> Result<R, DebugError> {
        self.ask(vp, Command::Call, call)?.answer().await
    }

    /// As [`call`](Self::call), for a call that changes the VP.
    ///
    /// # Errors
    /// [`DebugError::HeldByVmm`], and those of [`call`](Self::call).
    pub(super) async fn change<R: Send + 'static>(
        &self,
        vp: VpIndex,
        call: impl FnOnce(&mut dyn ParkedVp) -> Result<R, DebugError> + Send + 'static,
    ) -> Result<R, DebugError> {
        self.ask(vp, Command::Change, call)?.answer().await
    }

    fn ask<R: Send + 'static>(
        &self,
        vp: VpIndex,
        command: impl FnOnce(Call) -> Command,
        call: impl FnOnce(&mut dyn ParkedVp) -> Result<R, DebugError> + Send + 'static,
    ) -> Result<Asked<'_, R>, DebugError> {
        let (send, receive) = mesh::oneshot();
        let boxed = Box::new(move |vp: &mut dyn ParkedVp| send.send(call(vp)));
        let link = &self.thread(vp)?.link;
        let sent = link.command(command(boxed));
        sent.map_err(|why| not_taken(vp, why))?;
        Ok(Asked {
            vp,
            answer: receive,
            link: &**link,
        })
    }

    /// Makes the call on every VP, at the same time. Returns the first error, when all VPs have answered.
    pub(super) async fn call_all(
        &self,
        call: impl Fn(&mut dyn ParkedVp) -> Result<(), DebugError> + Clone + Send + 'static,
    ) -> Result<(), DebugError> {
        let asked: Vec<_> = self
            .set
            .iter()
            .map(|vp| self.ask(vp, Command::Call, call.clone()))
            .collect();
        let mut result = Ok(());
        for asked in asked {
            let answer = match asked {
                Ok(asked) => asked.answer().await,
                Err(err) => Err(err),
            };
            result = result.and(answer);
        }
        result
    }

    /// The registers of a parked VP. Does not wake the VP's thread if the registers have been read since the VP parked.
    pub(super) async fn registers(&mut self, vp: VpIndex) -> Result<Arc<VpState>, DebugError> {
        self.check(vp)?;
        let thread = &mut self.threads[vp.index() as usize];
        thread.looked_at = Snapshot::Ahead;
        let snapshot = match thread.link.is_held_by_vmm() {
            // The VMM may have changed registers since.
            true => None,
            false => {
                let snapshot = thread.snapshot.lock();
                snapshot.unwrap_or_else(PoisonError::into_inner).clone()
            }
        };
        match snapshot {
            Some(state) => Ok(state),
            None => self.call(vp, |vp| vp.read_registers()).await,
        }
    }
}

/// A call that a parked VP has yet to answer.
struct Asked<'a, R> {
    vp: VpIndex,
    answer: mesh::OneshotReceiver<Result<R, DebugError>>,
    link: &'a dyn VpLink,
}

impl<R> Asked<'_, R> {
    async fn answer(mut self) -> Result<R, DebugError> {
        let mut soon = None;
        self.link.wait_briefly(&mut || {
            soon = (&mut self.answer).now_or_never();
            soon.is_some()
        });
        let answer = match soon {
            Some(answer) => answer,
            None => self.answer.await,
        };
        answer.map_err(|_| DebugError::VpThreadEnded { vp: self.vp })?
    }
}

impl VpThread {
    pub(super) fn new(gate: Arc<RunGate>, link: Box<dyn VpLink>, snapshot: Snapshots) -> Self {
        Self {
            gate,
            link,
            snapshot,
            looked_at: Snapshot::OnDemand,
            kicked: None,
            presence: Presence::Here,
        }
    }

    /// The place of a vCPU that has not come yet.
    fn absent() -> Self {
        let gate = Arc::new(RunGate::new());
        Self {
            presence: Presence::Gone,
            ..Self::new(gate, Box::new(NoLink), Snapshots::default())
        }
    }

    fn kick(&self) {
        self.link.kick(self.gate.kick());
    }
}

/// The connection to a vCPU that has not come yet.
struct NoLink;

impl VpLink for NoLink {
    fn command(&self, _: Command) -> Result<(), NotTaken> {
        Err(NotTaken::Gone)
    }

    fn wait_briefly(&self, _: &mut dyn FnMut() -> bool) {}

    fn kick(&self, _: Kick) {}

    fn join(&mut self) {}
}

impl Drop for Vps {
    fn drop(&mut self) {
        for vp in &self.threads {
            vp.kick();
            // The command fails if the thread has ended already.
            let _ = vp.link.command(Command::Exit);
        }
        for vp in &mut self.threads {
            vp.link.join();
        }
    }
}

fn not_taken(vp: VpIndex, why: NotTaken) -> DebugError {
    match why {
        NotTaken::Gone => DebugError::VpThreadEnded { vp },
        NotTaken::HeldByVmm => DebugError::HeldByVmm { vp },
    }
}

/// Logs that a VP has not told something about itself. A VP that the VMM has paused is asked again at the next stop.
pub(super) fn log_unknown(vp: VpIndex, error: &DebugError, what: &str) {
    match error {
        DebugError::HeldByVmm { .. } => tracing::debug!(%vp, %error, "{what}"),
        _ => tracing::error!(%vp, %error, "{what}"),
    }
}

/// One action for each VP.
///
/// # Errors
/// [`DebugError::NoSuchVp`]; [`DebugError::Unsupported`] for an action that this runner does not know.
pub(super) fn plan(
    request: &vmm_core_defs::debug_rpc::ResumeRequest,
    count: u32,
) -> Result<Vec<VpAction>, DebugError> {
    let mut plan = vec![known(request.others)?; count as usize];
    for (vp, action) in &request.actions {
        let planned = plan.get_mut(vp.index() as usize);
        *planned.ok_or(DebugError::NoSuchVp { vp: *vp, count })? = known(*action)?;
    }
    Ok(plan)
}

/// The action, unless it is an action of a newer vmm_core_defs.
#[deny(clippy::wildcard_enum_match_arm)]
fn known(action: VpAction) -> Result<VpAction, DebugError> {
    match action {
        VpAction::Stay
        | VpAction::Run
        | VpAction::Step
        | VpAction::StepRange { .. }
        | VpAction::StepN { .. } => Ok(action),
        unknown => {
            let request = format!("Resume with {unknown:?}");
            Err(Unsupported::Request { request }.into())
        }
    }
}

#[cfg(test)]
mod tests;
