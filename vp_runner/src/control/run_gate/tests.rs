#[cfg(not(any(loom, shuttle)))]
mod plain {
    use super::super::*;

    #[test]
    fn a_kick_before_entry_keeps_the_vp_out_until_it_is_taken_back() {
        let gate = RunGate::new();
        assert_eq!(gate.kick(), Kick::Noted);
        assert_eq!(gate.enter(), Err(Kicked));
        assert_eq!(gate.enter(), Err(Kicked), "a kick is sticky");
        gate.clear();
        assert_eq!(gate.enter(), Ok(()));
    }

    #[test]
    fn a_kick_in_the_guest_asks_for_one_signal_and_outlives_the_exit() {
        let gate = RunGate::new();
        gate.enter().unwrap();
        assert_eq!(gate.kick(), Kick::Signal);
        assert_eq!(gate.kick(), Kick::Noted, "one signal is enough");
        gate.leave();
        assert_eq!(gate.enter(), Err(Kicked));
    }

    #[test]
    fn each_hold_keeps_the_vp_out_until_it_is_taken() {
        let gate = RunGate::new();
        gate.enter().unwrap();
        assert_eq!(gate.hold(), Kick::Signal);
        assert_eq!(gate.hold(), Kick::Noted, "one signal is enough");
        assert_eq!(gate.kick(), Kick::Noted, "one signal is enough");
        assert!(gate.is_in_guest());
        gate.leave();
        assert!(!gate.is_in_guest());
        for left in [2, 1] {
            gate.clear();
            assert!(gate.is_kicked(), "{left} left");
            assert_eq!(gate.enter(), Err(Kicked), "{left} left");
            gate.take_hold();
            assert!(gate.is_kicked(), "the hold becomes a kick");
        }
        gate.clear();
        assert!(!gate.is_kicked());
        assert_eq!(gate.enter(), Ok(()));
    }

    #[test]
    fn nothing_keeps_the_vp_out_of_an_open_gate() {
        let gate = RunGate::new();
        assert_eq!((gate.hold(), gate.kick()), (Kick::Noted, Kick::Noted));
        gate.open();
        assert_eq!(gate.enter(), Ok(()));
    }

    #[test]
    fn leaving_unkicked_opens_the_gate_again() {
        let gate = RunGate::new();
        gate.enter().unwrap();
        gate.leave();
        assert_eq!(gate.enter(), Ok(()));
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p trapgate-vp-runner --lib run_gate` runs this model.
///
/// In the model `immediate_exit` is an atomic and the signal handler runs on the kicker's thread. The model therefore has more interleavings than real
/// signals, which are delivered on the VP's own thread.
#[cfg(loom)]
mod model {
    use super::super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::sync::mpsc;
    use loom::thread;

    struct Vcpu {
        gate: RunGate,
        immediate_exit: AtomicBool,
        /// The guest causes an exit.
        own_exit: AtomicBool,
        /// The VP has been in the guest.
        entered: AtomicBool,
    }

    impl Vcpu {
        fn new(own_exit: bool) -> Arc<Self> {
            Arc::new(Self {
                gate: RunGate::new(),
                immediate_exit: AtomicBool::new(false),
                own_exit: AtomicBool::new(own_exit),
                entered: AtomicBool::new(false),
            })
        }

        /// `KVM_RUN`. Returns only for `immediate_exit` or for an exit that the guest causes.
        fn kvm_run(&self) {
            while !self.immediate_exit.load(Ordering::Acquire)
                && !self.own_exit.swap(false, Ordering::AcqRel)
            {
                thread::yield_now();
            }
        }

        /// The loop of the VP thread. Returns when the VP parks.
        fn run_until_parked(&self) {
            loop {
                self.immediate_exit.store(false, Ordering::Release);
                if self.gate.enter().is_err() {
                    return;
                }
                self.entered.store(true, Ordering::Release);
                self.kvm_run();
                self.gate.leave();
            }
        }

        fn kick(&self) {
            if self.gate.kick() == Kick::Signal {
                self.immediate_exit.store(true, Ordering::Release);
            }
        }
    }

    fn on_its_thread(vcpu: &Arc<Vcpu>, does: fn(&Vcpu)) -> thread::JoinHandle<()> {
        let vcpu = vcpu.clone();
        thread::spawn(move || does(&vcpu))
    }

    fn bounded() -> loom::model::Builder {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model
    }

    #[test]
    fn a_kick_parks_the_vp_wherever_it_falls() {
        bounded().check(|| {
            let vcpu = Vcpu::new(false);
            let vp = on_its_thread(&vcpu, Vcpu::run_until_parked);
            vcpu.kick();
            // A lost kick would leave the VP in `kvm_run` for ever, which loom reports.
            vp.join().unwrap();
        });
    }

    #[test]
    fn a_kick_that_races_the_guests_own_exit_parks_the_vp_too() {
        bounded().check(|| {
            let vcpu = Vcpu::new(true);
            let vp = on_its_thread(&vcpu, Vcpu::run_until_parked);
            vcpu.kick();
            vp.join().unwrap();
        });
    }

    /// A device of the VMM causes an event. The controller, which enters the VP for another reason meanwhile, then learns of the event and kicks the VP.
    #[test]
    fn a_held_vp_stays_out_although_the_controller_enters_it_again() {
        bounded().check(|| {
            let vcpu = Vcpu::new(false);
            if vcpu.gate.hold() == Kick::Signal {
                vcpu.immediate_exit.store(true, Ordering::Release);
            }
            let vp = on_its_thread(&vcpu, |vcpu| {
                vcpu.run_until_parked();
                assert!(!vcpu.entered.load(Ordering::Acquire), "held");
            });
            vcpu.gate.clear();
            vp.join().unwrap();
            vcpu.gate.take_hold();
            vcpu.gate.clear();
            let vp = on_its_thread(&vcpu, Vcpu::run_until_parked);
            vcpu.kick();
            vp.join().unwrap();
        });
    }

    #[test]
    fn a_hold_parks_the_vp_wherever_it_falls() {
        bounded().check(|| {
            let vcpu = Vcpu::new(false);
            let vp = on_its_thread(&vcpu, Vcpu::run_until_parked);
            if vcpu.gate.hold() == Kick::Signal {
                vcpu.immediate_exit.store(true, Ordering::Release);
            }
            vcpu.gate.take_hold();
            vp.join().unwrap();
        });
    }

    /// The state of the VP, which has one owner at a time: the controller from `parked` to the next `Enter`, the VP thread from `Enter` to `parked` (I3). The
    /// cell fails the test if both access the state at the same time.
    struct HandOver {
        vcpu: Arc<Vcpu>,
        state: loom::cell::UnsafeCell<u32>,
    }

    /// An access of the kind that loom allows one thread at a time.
    fn touch(state: &loom::cell::UnsafeCell<u32>) {
        state.with_mut(|_| ());
    }

    #[test]
    fn a_stop_hands_the_vp_over_and_a_resume_gives_it_back() {
        bounded().check(|| {
            let vcpu = Vcpu::new(false);
            let over = Arc::new(HandOver {
                vcpu,
                state: loom::cell::UnsafeCell::new(0),
            });
            let (enter, commands) = mpsc::channel::<()>();
            let (park, parked) = mpsc::channel::<()>();
            let vp = thread::spawn({
                let over = over.clone();
                move || {
                    for _ in 0..2 {
                        commands.recv().unwrap();
                        touch(&over.state);
                        over.vcpu.run_until_parked();
                        touch(&over.state);
                        park.send(()).unwrap();
                    }
                }
            });
            for _ in 0..2 {
                touch(&over.state);
                over.vcpu.gate.clear();
                enter.send(()).unwrap();
                over.vcpu.kick();
                parked.recv().unwrap();
                touch(&over.state);
            }
            vp.join().unwrap();
        });
    }

    #[test]
    fn a_late_signal_does_not_break_the_next_round() {
        bounded().check(|| {
            let vcpu = Vcpu::new(true);
            let vp = on_its_thread(&vcpu, Vcpu::run_until_parked);
            // The kick is set here. Its signal arrives later, while the VP parks because of the gate.
            let signal = vcpu.gate.kick();
            let late = thread::spawn({
                let vcpu = vcpu.clone();
                move || {
                    if signal == Kick::Signal {
                        vcpu.immediate_exit.store(true, Ordering::Release);
                    }
                }
            });
            vp.join().unwrap();
            vcpu.gate.clear();
            let vp = on_its_thread(&vcpu, Vcpu::run_until_parked);
            vcpu.kick();
            vp.join().unwrap();
            late.join().unwrap();
        });
    }
}
