//! The connection of the controller to a VP, and the thread of the VP as the target of kicks.

use super::*;
use crate::control::run_gate::Kick as Kicked;
use crate::hook::link::HookLink;
use crate::hook::link::NotTaken;
use crate::hook::link::VpLink;
use crate::hook::on_thread::OnThread;
use crate::kvm::kick::Kick;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// Records its calls.
#[derive(Default)]
struct Recorder(Mutex<Vec<&'static str>>);

impl Recorder {
    fn note(&self, call: &'static str) {
        self.0.lock().unwrap().push(call);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Kick for Recorder {
    fn register(&self, _: VpIndex) -> io::Result<()> {
        self.note("register");
        Ok(())
    }

    fn unregister(&self, _: VpIndex) {
        self.note("unregister");
    }

    fn kick(&self, _: VpIndex) {
        self.note("kick");
    }

    fn kick_again(&self, _: VpIndex) {
        self.note("kick again");
    }
}

fn link(holder: Holder) -> (HookLink, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let link = HookLink {
        vp: VP,
        mailbox: Arc::new(Mailbox::new(holder).unwrap()),
        kick: recorder.clone(),
        away: None,
        thread: None,
    };
    (link, recorder)
}

#[test]
fn the_link_knows_who_has_the_thread() {
    check(|| {
        for (holder, is_held) in [(Holder::Vmm, true), (Holder::Runner, false)] {
            let (link, _) = link(holder);
            assert_eq!(link.is_held_by_vmm(), is_held);
            assert_eq!(link.is_kept_by_vmm(), is_held);
        }
    });
}

#[test]
fn only_a_vp_in_the_guest_gets_a_signal_and_a_repeated_kick_is_told_apart() {
    check(|| {
        let (link, recorder) = link(Holder::Runner);
        link.kick(Kicked::Noted);
        assert!(recorder.take().is_empty());
        link.kick(Kicked::Signal);
        assert_eq!(recorder.take(), ["kick"]);
        link.kick_again();
        assert_eq!(recorder.take(), ["kick again"]);
    });
}

#[test]
fn join_waits_for_the_end_of_the_thread() {
    check(|| {
        let (mut link, _) = link(Holder::Runner);
        let has_ended = Arc::new(AtomicBool::new(false));
        let end = has_ended.clone();
        link.thread = Some(thread::spawn(move || {
            for _ in 0..10 {
                thread::yield_now();
            }
            end.store(true, Ordering::Release);
        }));
        link.join();
        assert!(has_ended.load(Ordering::Acquire));
    });
}

/// A link with nothing but what every link has to say.
#[derive(Default)]
struct Terse(Recorder);

impl VpLink for Terse {
    fn command(&self, _: Command) -> Result<(), NotTaken> {
        Err(NotTaken::Gone)
    }

    fn wait_briefly(&self, _: &mut dyn FnMut() -> bool) {}

    fn kick(&self, kick: Kicked) {
        assert_eq!(kick, Kicked::Signal);
        self.0.note("kick");
    }

    fn join(&mut self) {}
}

#[test]
fn the_vmm_does_not_hold_a_vp_whose_link_does_not_say_so() {
    let link = Terse::default();
    assert!(!link.is_held_by_vmm());
    assert!(!link.is_kept_by_vmm());
    link.kick_again();
    assert_eq!(link.0.take(), ["kick"]);
}

#[test]
fn no_kick_follows_when_the_thread_is_no_more_the_vps() {
    check(|| {
        let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
        let recorder = Arc::new(Recorder::default());
        let on_thread = OnThread::new(&mut bed.vp, recorder.clone()).unwrap();
        assert_eq!(recorder.take(), ["register"]);
        drop(on_thread);
        assert_eq!(recorder.take(), ["unregister"]);
    });
}
