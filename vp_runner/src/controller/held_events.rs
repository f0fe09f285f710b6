//! Events that a device of the VMM has caused and that the VMM holds back for a debugger.

use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::Kick;
use crate::control::run_gate::RunGate;
use crate::hook::VpEvent;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

/// The VMM's function for events from which the debugger has continued.
pub(crate) type Continued = Box<dyn Fn(GuestEventKind) + Send + Sync>;

/// See the module. Shared by the controller and the VMM's handle.
#[derive(Clone)]
pub(crate) struct HeldEvents(Arc<Inner>);

struct Inner {
    /// One bit for each kind of event that is a stop now.
    stops: AtomicU8,
    held: Mutex<Held>,
    continued: Continued,
    /// The events that the VMM or KVM announces.
    announced: StopOn,
}

/// The VP that has caused an event.
pub(crate) struct Causer<'a> {
    pub(crate) vp: VpIndex,
    pub(crate) gate: &'a Arc<RunGate>,
    pub(crate) signal: &'a dyn crate::kvm::kick::Kick,
}

#[derive(Default)]
struct Held {
    events: Vec<GuestEvent>,
    /// The debugger has ended, and nobody would give an event back.
    has_ended: bool,
}

impl HeldEvents {
    pub(crate) fn new(continued: Continued, announced: StopOn) -> Self {
        Self(Arc::new(Inner {
            stops: AtomicU8::new(0),
            held: Mutex::default(),
            continued,
            announced,
        }))
    }

    /// The events that can be stops.
    pub(super) fn announced(&self) -> StopOn {
        self.0.announced
    }

    /// Sets which events are stops. `None`: no debugger is attached.
    pub(super) fn set_stops(&self, stops: Option<StopOn>) {
        let bits = stops.map_or(0, StopOn::bits);
        self.0.stops.store(bits, Ordering::Release);
    }

    /// Notes that the VMM holds the event, if the event is a stop now, and tells the controller. Keeps the VP that has caused the event out of the guest until the
    /// controller stops the guest.
    pub(crate) fn hold(
        &self,
        event: GuestEvent,
        cause: Option<Causer<'_>>,
        events: &mesh::Sender<VpEvent>,
    ) -> bool {
        let stops = StopOn::from_bits(self.0.stops.load(Ordering::Acquire));
        let is_stop = self.0.stops.load(Ordering::Acquire) != 0 && event.is_stop(stops);
        if !is_stop {
            return false;
        }
        // The lock is held to the end, see `take_hold`.
        let mut held = self.lock();
        if held.has_ended {
            return false;
        }
        held.events.push(event);
        // A VP that is held parks at once. The controller must have the event before the park, which would have no reason otherwise. The channel keeps the order.
        let gate = cause.as_ref().map(|cause| cause.gate.clone());
        events.send(VpEvent::Device(event, gate));
        if let Some(cause) = cause
            && cause.gate.hold() == Kick::Signal
        {
            cause.signal.kick(cause.vp);
        }
        true
    }

    /// The controller has the event, and the VP is to park for it. A thread of the VMM that has announced the event and is about to hold the gate does so first.
    pub(super) fn take_hold(&self, gate: &RunGate) {
        drop(self.lock());
        gate.take_hold();
    }

    /// The debugger ends. The VMM acts on everything that it holds, and holds nothing from now on.
    pub(super) fn end(&self) {
        let mut held = self.lock();
        held.has_ended = true;
        let events = std::mem::take(&mut held.events);
        drop(held);
        for kind in events.into_iter().filter_map(GuestEvent::kind) {
            (self.0.continued)(kind);
        }
    }

    /// The debugger has continued from this event, so the VMM acts on what it holds.
    pub(super) fn continued(&self, event: GuestEvent) {
        let mut held = self.lock();
        let before = held.events.len();
        held.events.retain(|kept| !kept.is_covered_by(event));
        let was_held = held.events.len() < before;
        drop(held);
        if was_held && let Some(kind) = event.kind() {
            (self.0.continued)(kind);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use futures::StreamExt as _;
    use std::sync::Mutex;
    use std::sync::mpsc;

    fn hold(events: &HeldEvents, event: GuestEvent) -> bool {
        let (send, mut sent) = mesh::channel();
        let is_held = events.hold(event, None, &send);
        drop(send);
        let learns = next(&mut sent).is_some();
        assert_eq!(learns, is_held, "the controller learns of the event");
        is_held
    }

    fn next(sent: &mut mesh::Receiver<VpEvent>) -> Option<VpEvent> {
        sent.next().now_or_never().flatten()
    }

    /// Takes the event that was sent before the signal.
    struct Signals {
        sent: Mutex<mesh::Receiver<VpEvent>>,
        kicked: Mutex<Vec<(VpIndex, Option<VpEvent>)>>,
    }

    impl crate::kvm::kick::Kick for Signals {
        fn register(&self, _: VpIndex) -> std::io::Result<()> {
            Ok(())
        }

        fn unregister(&self, _: VpIndex) {}

        fn kick(&self, vp: VpIndex) {
            let event = next(&mut self.sent.lock().unwrap());
            self.kicked.lock().unwrap().push((vp, event));
        }
    }

    #[test]
    fn the_vp_that_caused_an_event_stays_out_of_the_guest_until_the_controller_kicks_it() {
        let vp = VpIndex::new(3);
        for is_in_guest in [false, true] {
            let events = HeldEvents::new(Box::new(|_| {}), StopOn::all());
            events.set_stops(Some(StopOn::default()));
            let gate = Arc::new(RunGate::new());
            if is_in_guest {
                gate.enter().unwrap();
            }
            let (send, sent) = mesh::channel();
            let signal = Signals {
                sent: Mutex::new(sent),
                kicked: Mutex::default(),
            };
            let reset = GuestEvent::Reset { vp: Some(vp) };
            let causer = Causer {
                vp,
                gate: &gate,
                signal: &signal,
            };
            assert!(events.hold(reset, Some(causer), &send));
            let mut kicked = signal.kicked.into_inner().unwrap();
            let sent = match is_in_guest {
                true => {
                    let (kicked, sent) = kicked.pop().expect("a signal");
                    assert_eq!(kicked, vp);
                    sent
                }
                false => next(&mut signal.sent.lock().unwrap()),
            };
            assert!(kicked.is_empty());
            let Some(VpEvent::Device(event, Some(held))) = sent else {
                panic!("no event before the signal, or no gate");
            };
            assert_eq!(event, reset);
            gate.leave();
            // The controller enters the VP again for another reason.
            gate.clear();
            assert!(gate.enter().is_err());
            events.take_hold(&held);
            assert!(gate.enter().is_err(), "the hold has become a kick");
            gate.clear();
            assert!(gate.enter().is_ok());
        }
    }

    #[test]
    fn an_event_is_held_only_for_a_debugger_that_asked_for_it_and_given_back_once() {
        let (send, given_back) = mpsc::channel();
        let send = Mutex::new(send);
        let continued: Continued = Box::new(move |kind| {
            send.lock().unwrap().send(kind).unwrap();
        });
        let events = HeldEvents::new(continued, StopOn::all());
        let reset = GuestEvent::Reset { vp: None };
        assert!(!hold(&events, reset), "no debugger");
        events.set_stops(Some(StopOn::from_iter([GuestEventKind::PowerOff])));
        assert!(!hold(&events, reset), "not asked for");
        events.set_stops(Some(StopOn::default()));
        assert!(hold(&events, reset));
        assert!(hold(&events, reset), "a second CPU asks for the same");
        events.continued(GuestEvent::PowerOff { vp: None });
        assert!(given_back.try_recv().is_err());
        events.continued(reset);
        assert_eq!(given_back.try_recv(), Ok(GuestEventKind::Reset));
        events.continued(reset);
        assert!(given_back.try_recv().is_err(), "given back once");
        events.set_stops(None);
        assert!(!hold(&events, reset));
    }

    #[test]
    fn the_end_of_the_debugger_gives_every_event_back_and_holds_no_other() {
        let (send, given_back) = mpsc::channel();
        let send = Mutex::new(send);
        let continued: Continued = Box::new(move |kind| {
            send.lock().unwrap().send(kind).unwrap();
        });
        let events = HeldEvents::new(continued, StopOn::all());
        events.set_stops(Some(StopOn::default()));
        assert!(hold(&events, GuestEvent::Reset { vp: None }));
        events.end();
        assert_eq!(given_back.try_recv(), Ok(GuestEventKind::Reset));
        assert!(
            !hold(&events, GuestEvent::PowerOff { vp: None }),
            "nobody would give it back"
        );
        assert!(given_back.try_recv().is_err());
    }
}
