//! Running, stepping and waiting.

use crate::breakpoint::Breakpoint;
use crate::debugger::Debugger;
use crate::error::Error;
use crate::stop::Stop;
use crate::stop::StopKind;
use mesh::rpc::PendingFailableRpc;
use pal_async::timer::Instant;
use std::num::NonZeroU64;
use std::time::Duration;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopEvent;
use vmm_core_defs::stop::StopOn;

/// Whether the guest runs, and where it stopped last.
#[derive(Debug)]
pub(crate) struct Run {
    last: Stop,
    /// The VP of the last stop that concerned one VP.
    current: u32,
    /// The request whose answer is the next stop.
    running: Option<PendingFailableRpc<StopEvent, DebugError>>,
}

impl Run {
    pub(crate) fn stopped(last: Stop) -> Self {
        Self {
            current: current(&last, None),
            last,
            running: None,
        }
    }

    pub(crate) const fn last(&self) -> &Stop {
        &self.last
    }

    /// See [`Debugger::current`].
    pub(crate) const fn current(&self) -> u32 {
        self.current
    }

    /// Whether a stop can be waited for.
    pub(crate) const fn running(&self) -> bool {
        self.running.is_some()
    }

    fn stop(&mut self, stop: Stop) {
        self.current = current(&stop, Some(self.current));
        self.last = stop;
    }
}

/// The VP of the stop. If the stop concerned the whole guest: the VP of the stop before, while the guest has this VP, or else the first VP.
fn current(stop: &Stop, before: Option<u32>) -> u32 {
    let is_here = |vp: &u32| stop.vps.iter().any(|here| here.index() == *vp);
    let first = || stop.vps.iter().next().map(VpIndex::index);
    let before = || before.filter(is_here);
    stop.vp().or_else(before).or_else(first).unwrap_or_default()
}

impl Debugger {
    /// Makes these guest events stops, and no others, until the session ends. A session begins with all events but a panic ([`StopOn::default`]). The guest may run.
    ///
    /// The set of the events that are stops now is returned.
    ///
    /// ```no_run
    /// # async fn program(mut vm: debug_client::Debugger) -> Result<(), debug_client::Error> {
    /// use debug_client::{GuestEventKind, StopKind};
    /// vm.stop_on([GuestEventKind::Panic, GuestEventKind::TripleFault]).await?;
    /// vm.resume()?;
    /// vm.wait_for(StopKind::Panic, std::time::Duration::from_secs(60)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoStopOn`]: the VMM does not tell its debug server of an event. The other events are stops then.
    pub async fn stop_on(
        &self,
        events: impl IntoIterator<Item = GuestEventKind>,
    ) -> Result<StopOn, Error> {
        self.stop_on_set(events.into_iter().collect()).await
    }

    pub(crate) async fn stop_on_set(&self, events: StopOn) -> Result<StopOn, Error> {
        let on = self
            .link
            .call("choose the stops", DebugRequest::StopOn, Some(events))
            .await?;
        match StopKind::of_events(events).find(|(event, _)| !on.contains(*event)) {
            Some((_, event)) => Err(Error::NoStopOn { event }),
            None => Ok(on),
        }
    }

    /// Whether the guest runs, as far as this program knows: it has let the guest run, and has not waited for the stop yet.
    pub const fn running(&self) -> bool {
        self.run.running()
    }

    /// Lets all VPs run. The method does not wait for a stop.
    ///
    /// # Errors
    /// The guest is running already.
    pub fn resume(&mut self) -> Result<(), Error> {
        self.begin_run(ResumeRequest::every(VpAction::Run))
    }

    /// Stops the guest, and waits until it is stopped. The stop may be another one that came first. If the guest is stopped, this is the last stop.
    ///
    /// # Errors
    /// The VMM does not answer: the thread of a VP may be in the VMM's own code.
    pub async fn interrupt(&mut self) -> Result<Stop, Error> {
        if self.run.running.is_none() {
            return Ok(self.run.last.clone());
        }
        self.link
            .call("interrupt the guest", DebugRequest::Break, ())
            .await?;
        let limit = self.link.answers.limit;
        // The stop is answered before the interruption.
        match self.stop_within(limit).await? {
            Some(stop) => Ok(stop),
            None => Err(Error::NoAnswer {
                request: "interrupt the guest",
                limit,
            }),
        }
    }

    /// Waits for the next stop of a guest that [`resume`](Self::resume) let run, whatever it is. A future that is dropped leaves the guest running, and the stop
    /// can be waited for again.
    ///
    /// # Errors
    /// The guest is stopped already. [`Error::TimedOut`]: it did not stop in time, was interrupted, and is stopped now. The guest or the VMM has ended.
    pub async fn wait(&mut self, limit: Duration) -> Result<Stop, Error> {
        match self.stop_within(limit).await? {
            Some(stop) => Ok(stop),
            None => self.interrupted("a stop", limit, |_| true).await,
        }
    }

    /// Waits for a stop of one kind of a guest that [`resume`](Self::resume) let run. Every other stop is an error.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait), and [`Error::OtherStop`].
    pub async fn wait_for(&mut self, kind: StopKind, limit: Duration) -> Result<Stop, Error> {
        self.wait_until(&kind.to_string(), limit, |stop| stop.kind() == kind)
            .await
    }

    /// Lets all VPs run until one reaches this breakpoint. Every other stop is an error.
    ///
    /// # Errors
    /// The guest is running already. [`Error::OtherStop`], [`Error::TimedOut`]: the guest is stopped. The guest or the VMM has ended.
    pub async fn run_until(
        &mut self,
        breakpoint: &Breakpoint,
        limit: Duration,
    ) -> Result<Stop, Error> {
        self.resume()?;
        self.wait_until(&breakpoint.wanted(), limit, |stop| {
            breakpoint.is_reason(&stop.reason)
        })
        .await
    }

    /// The current VP ([`current`](Self::current)) executes one instruction, and the other VPs stay where they are.
    ///
    /// # Errors
    /// The guest is running. [`Error::OtherStop`]: another stop came first, or the step led to a breakpoint.
    pub async fn step(&mut self) -> Result<Stop, Error> {
        self.step_n(1).await
    }

    /// The current VP executes `count` instructions by one request, and the other VPs stay where they are. A breakpoint at which the VP has stopped is passed, and another one
    /// ends the steps. [`Stop::steps`] is the number of instructions that the VP has executed.
    ///
    /// The limit of a request ([`Options::request_limit`](crate::Options::request_limit)) is the limit of all these steps together.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), and [`Error::TimedOut`]. Steps that came before are not undone. A VMM of an older version that has no such request refuses more than one step
    /// ([`Error::Refused`]).
    pub async fn step_n(&mut self, count: u64) -> Result<Stop, Error> {
        let Some(count) = NonZeroU64::new(count) else {
            return Ok(self.run.last.clone());
        };
        let (action, wanted) = match count {
            // An older VMM knows this one.
            NonZeroU64::MIN => (VpAction::Step, "the end of a step"),
            _ => (VpAction::StepN { count }, "the end of the steps"),
        };
        let vp = VpIndex::new(self.run.current());
        self.begin_run(ResumeRequest::new(VpAction::Stay, vec![(vp, action)]))?;
        let limit = self.link.answers.limit;
        self.wait_until(wanted, limit, |stop| stop.kind() == StopKind::Step)
            .await
    }

    fn begin_run(&mut self, request: ResumeRequest) -> Result<(), Error> {
        if self.run.running.is_some() {
            return Err(Error::Running);
        }
        self.run.running = Some(self.link.send(DebugRequest::Resume, request));
        Ok(())
    }

    async fn wait_until(
        &mut self,
        wanted: &str,
        limit: Duration,
        is_wanted: impl Fn(&Stop) -> bool,
    ) -> Result<Stop, Error> {
        match self.stop_within(limit).await? {
            Some(stop) if is_wanted(&stop) => Ok(stop),
            Some(stop) => Err(Error::OtherStop {
                wanted: wanted.to_owned(),
                stop,
            }),
            None => self.interrupted(wanted, limit, is_wanted).await,
        }
    }

    /// Stops a guest that has run for too long. What was waited for may come just before.
    async fn interrupted(
        &mut self,
        wanted: &str,
        limit: Duration,
        is_wanted: impl Fn(&Stop) -> bool,
    ) -> Result<Stop, Error> {
        let stop = self.interrupt().await?;
        if stop.kind() != StopKind::Interrupt && is_wanted(&stop) {
            return Ok(stop);
        }
        Err(Error::TimedOut {
            wanted: wanted.to_owned(),
            limit,
            stop,
        })
    }

    /// The stop of the running guest, if it comes in time. Cancel safe.
    async fn stop_within(&mut self, limit: Duration) -> Result<Option<Stop>, Error> {
        let running = self.run.running.as_mut().ok_or(Error::NotRunning)?;
        let answers = &self.link.answers;
        let deadline = Instant::now().checked_add(limit);
        let Some(answer) = answers.before(deadline, running).await else {
            return Ok(None);
        };
        self.run.running = None;
        let event = answers.checked("run the guest", answer).await?;
        self.run.stop(event.into());
        Ok(Some(self.run.last.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::stop::DebugStopReason;
    use vmm_core_defs::stop::Epoch;
    use vmm_core_defs::vp_set::VpSet;

    #[test]
    fn a_stop_of_the_whole_guest_leaves_the_current_vp_while_the_guest_has_it() {
        let stop = |reason, vps: &[u32]| -> Stop {
            let vps: VpSet = vps.iter().copied().map(VpIndex::new).collect();
            StopEvent::new(Epoch::default(), reason, vps).into()
        };
        let mut run = Run::stopped(stop(DebugStopReason::Break, &[1, 2]));
        assert_eq!(run.current(), 1, "the first one");
        let vp = VpIndex::new(2);
        run.stop(stop(DebugStopReason::SingleStep { vp }, &[1, 2]));
        assert_eq!(run.current(), 2);
        run.stop(stop(DebugStopReason::Break, &[1, 2]));
        assert_eq!(run.current(), 2, "as before");
        run.stop(stop(DebugStopReason::Break, &[0, 1]));
        assert_eq!(run.current(), 0, "the VP has gone");
    }
}
