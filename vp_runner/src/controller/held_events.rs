//! Events that a device of the VMM has caused and that the VMM holds back for a debugger.

use crate::control::guest_event::GuestEvent;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
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

    /// Notes that the VMM holds the event, if the event is a stop now.
    pub(crate) fn hold(&self, event: GuestEvent) -> bool {
        let stops = StopOn::from_bits(self.0.stops.load(Ordering::Acquire));
        let is_stop = self.0.stops.load(Ordering::Acquire) != 0 && event.is_stop(stops);
        if !is_stop {
            return false;
        }
        let mut held = self.lock();
        if !held.has_ended {
            held.events.push(event);
        }
        !held.has_ended
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn an_event_is_held_only_for_a_debugger_that_asked_for_it_and_given_back_once() {
        let (send, given_back) = mpsc::channel();
        let send = Mutex::new(send);
        let continued: Continued = Box::new(move |kind| {
            send.lock().unwrap().send(kind).unwrap();
        });
        let events = HeldEvents::new(continued, StopOn::all());
        let reset = GuestEvent::Reset { vp: None };
        assert!(!events.hold(reset), "no debugger");
        events.set_stops(Some(StopOn::from_iter([GuestEventKind::PowerOff])));
        assert!(!events.hold(reset), "not asked for");
        events.set_stops(Some(StopOn::default()));
        assert!(events.hold(reset));
        assert!(events.hold(reset), "a second CPU asks for the same");
        events.continued(GuestEvent::PowerOff { vp: None });
        assert!(given_back.try_recv().is_err());
        events.continued(reset);
        assert_eq!(given_back.try_recv(), Ok(GuestEventKind::Reset));
        events.continued(reset);
        assert!(given_back.try_recv().is_err(), "given back once");
        events.set_stops(None);
        assert!(!events.hold(reset));
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
        assert!(events.hold(GuestEvent::Reset { vp: None }));
        events.end();
        assert_eq!(given_back.try_recv(), Ok(GuestEventKind::Reset));
        assert!(
            !events.hold(GuestEvent::PowerOff { vp: None }),
            "nobody would give it back"
        );
        assert!(given_back.try_recv().is_err());
    }
}
