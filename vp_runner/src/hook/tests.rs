//! The hook of one VP on a scripted vCPU: what the run loop does next, what the vCPU is told, and what the controller learns.

mod calls;
mod link;
mod vcpu;

use super::*;
use crate::arch::x86_64::guest_time::fake_clocks::FakeClocks;
use crate::arch::x86_64::guest_time::timekeeper::Timekeeper;
use crate::arch::x86_64::vp::tests;
use crate::arch::x86_64::vp::tests::CODE;
use crate::arch::x86_64::vp::tests::VP;
use crate::arch::x86_64::vp::tests::fake_vcpu::FakeVcpu;
use crate::arch::x86_64::vp::tests::fake_vcpu::Scripted;
use crate::arch::x86_64::vp::tests::fake_vcpu::Told;
use crate::control::at_breakpoint::AtBreakpoint;
use crate::control::enter::Int3Exits;
use crate::control::enter::StopSet;
use crate::control::run_state::Cause;
use crate::kvm::immediate_exit::BoundFlag;
use crate::kvm::immediate_exit::on_kick_signal;
use crate::sync::check;
use mailbox::Holder;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::FaultRegisters;

/// The address of the breakpoint, where there is one.
const THERE: u64 = CODE + 16;
const INT3: Scripted = Scripted::Debug { vector: 3, dr6: 0 };
const OUT: Scripted = Scripted::PioWrite { port: 0x80 };
/// Some KVMs report a breakpoint byte of ours in this way.
const EMULATION_FAILED: CrashCause = CrashCause::Internal { suberror: 1 };

/// Whether the guest has a breakpoint of the debugger, so that each entry and each exit needs work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Plain,
    WithBreakpoint,
}

/// A parked VP on the calling thread, and the other ends of its channels.
struct Bed {
    vp: HookedVp<FakeVcpu>,
    mailbox: Arc<Mailbox>,
    gate: Arc<RunGate>,
    events: mesh::Receiver<VpEvent>,
    stops: StopSet,
    time: Arc<Timekeeper>,
    flag: &'static AtomicU8,
    _bound: BoundFlag,
}

impl Bed {
    fn new(exits: Exits, guest: Guest) -> Self {
        Self::with_time(exits, guest, Timekeeper::without_clocks())
    }

    fn with_time(exits: Exits, guest: Guest, time: Timekeeper) -> Self {
        let breakpoints: &[_] = match guest {
            Guest::Plain => &[],
            Guest::WithBreakpoint => &[(BreakpointKind::Software, THERE)],
        };
        let (vcpu, context, stops) = tests::parts(breakpoints, time, tests::NO_PAGING);
        let mailbox = Arc::new(Mailbox::new(Holder::Vmm).unwrap());
        let (send, events) = mesh::channel();
        let parts = HookParts {
            mailbox: mailbox.clone(),
            events: send,
            exits,
            machine: None,
        };
        Self {
            mailbox,
            gate: context.gate.clone(),
            events,
            stops,
            time: context.time.clone(),
            flag: vcpu.flag,
            _bound: vcpu.bind().unwrap(),
            vp: HookedVp::new(vcpu, context, parts),
        }
    }

    fn send(&self, command: Command) {
        self.mailbox.send(command).unwrap();
    }

    fn call(&self, call: impl FnOnce(&mut dyn ParkedVp) + Send + 'static) {
        self.send(Command::Call(Box::new(call)));
    }

    /// The controller enters the guest.
    fn enter(&self, debugger: Debugger) {
        self.gate.clear();
        self.send(Command::Enter(Enter {
            action: VpAction::Run,
            epoch: Epoch::default(),
            at: AtBreakpoint::NEW,
            debugger,
            snapshot: Snapshot::OnDemand,
            stops: self.stops,
        }));
    }

    /// The guest runs until this exit.
    fn exit(&mut self, exit: Scripted, rip: u64) -> After {
        self.vp.vcpu().script = [exit.leaves_at(rip)].into();
        let result = HookedVcpu::run(self.vp.vcpu());
        self.vp.after_exit(result)
    }

    fn count(&mut self, told: Told) -> usize {
        let all = self.vp.vcpu().told.iter();
        all.filter(|one| **one == told).count()
    }

    /// The VMM sets its flag, because it wants its thread, or clears the flag.
    fn vmm_wants_thread(&self, wants: bool) {
        self.flag.store(wants.into(), Ordering::Relaxed);
    }

    /// The cause of a stop that the VP has reported.
    fn parked(&mut self) -> Option<Cause> {
        match self.events.try_recv() {
            Ok(VpEvent::Parked(parked)) => parked.cause,
            _ => panic!("the VP has not parked"),
        }
    }

    /// The number of times that the VMM has moved the VP, as far as the controller has learned since the last call.
    fn moves(&mut self) -> usize {
        let mut moves = 0;
        while let Ok(event) = self.events.try_recv() {
            assert!(matches!(event, VpEvent::MovedByVmm(VP)));
            moves += 1;
        }
        moves
    }
}

const RESET: GuestEvent = GuestEvent::Reset { vp: Some(VP) };
const TRIPLE_FAULT: GuestEvent = GuestEvent::TripleFault {
    vp: VP,
    registers: FaultRegisters::Kept,
};

#[test]
fn what_was_read_from_the_vcpu_counts_until_the_vmm_has_the_vcpu() {
    check(|| {
        for (exits, had) in [
            (Exits::GoToVmm, [1, 2, 2, 2, 3]),
            (Exits::AreFailures, [0; 5]),
        ] {
            let mut bed = Bed::new(exits, Guest::WithBreakpoint);
            let entry = |bed: &mut Bed, before, entry: usize| {
                assert_eq!(bed.vp.before_entry(), before, "{exits:?}, entry {entry}");
                let found = bed.count(Told::HadByVmm);
                assert_eq!(found, had[entry], "{exits:?}, entry {entry}");
            };
            bed.enter(Debugger::Present);
            entry(&mut bed, Before::Enter, 0);
            assert_eq!(bed.exit(Scripted::Nothing, CODE), After::Handle);
            entry(&mut bed, Before::Enter, 1);
            assert_eq!(bed.exit(INT3, THERE), After::Again);
            bed.enter(Debugger::Present);
            entry(&mut bed, Before::Enter, 2);
            assert_eq!(bed.exit(INT3, THERE), After::Again);
            bed.vmm_wants_thread(true);
            entry(&mut bed, Before::Interrupted, 3);
            bed.vmm_wants_thread(false);
            bed.enter(Debugger::Present);
            entry(&mut bed, Before::Enter, 4);
        }
    });
}

#[test]
fn only_an_exit_that_may_be_a_stop_needs_work_in_a_guest_without_breakpoints() {
    use Debugger::*;
    use Exits::*;
    let exit = |exit| (exit, Ok(()));
    let error = |errno| (Scripted::Nothing, Err(errno));
    for (exits, debugger, (script, result), after, looks) in [
        (GoToVmm, Present, exit(OUT), After::Handle, 0),
        (GoToVmm, Present, exit(Scripted::Shutdown), After::Hold, 1),
        (GoToVmm, Present, error(libc::EINTR), After::Handle, 0),
        (GoToVmm, Present, error(libc::EAGAIN), After::Handle, 0),
        (GoToVmm, Present, error(libc::EFAULT), After::Hold, 1),
        (GoToVmm, Absent, exit(OUT), After::Handle, 0),
        (GoToVmm, Absent, exit(Scripted::Shutdown), After::Handle, 0),
        (GoToVmm, Absent, error(libc::EFAULT), After::Handle, 0),
        // The devices of a machine may ask for an event.
        (AreFailures, Absent, exit(OUT), After::Handle, 1),
        (
            AreFailures,
            Absent,
            exit(Scripted::Shutdown),
            After::Again,
            1,
        ),
        (AreFailures, Absent, error(libc::EINTR), After::Handle, 0),
        (AreFailures, Absent, error(libc::EFAULT), After::Again, 1),
    ] {
        let case = format!("{exits:?}, {debugger:?}, {script:?}, {result:?}");
        check(move || {
            let mut bed = Bed::new(exits, Guest::Plain);
            bed.enter(debugger);
            assert_eq!(bed.vp.before_entry(), Before::Enter, "{case}");
            bed.vp.vcpu().script = [script.leaves_at(CODE)].into();
            let run = HookedVcpu::run(bed.vp.vcpu());
            assert_eq!(bed.vp.after_exit(run.and(result)), after, "{case}");
            assert_eq!(bed.count(Told::Left), looks, "{case}");
        });
    }
}

#[test]
fn the_vmm_may_keep_a_vcpu_for_whose_last_exit_kvm_has_nothing_left_to_do() {
    check(|| {
        for (exit, is_whole) in [
            (OUT, false),
            (Scripted::Nothing, true),
            (Scripted::Interrupted, true),
        ] {
            let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
            bed.enter(Debugger::Present);
            assert_eq!(bed.vp.before_entry(), Before::Enter);
            assert_eq!(bed.exit(exit, CODE), After::Handle);
            assert_eq!(bed.vp.is_whole(), is_whole, "{exit:?}");
        }
    });
}

#[test]
fn a_command_to_enter_needs_the_thread_unless_the_vp_parks_at_once() {
    check(|| {
        let bed = Bed::new(Exits::GoToVmm, Guest::Plain);
        bed.enter(Debugger::Present);
        assert!(bed.mailbox.take_away(false).is_none());
        let taken = bed.mailbox.take_away(true);
        assert!(matches!(taken, Some(Command::Enter(_))));
    });
}

#[test]
fn the_vmm_gets_an_event_of_the_guest_once_and_only_after_the_debugger() {
    check(|| {
        let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
        bed.enter(Debugger::Present);
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        assert_eq!(bed.exit(Scripted::Shutdown, CODE), After::Hold);
        bed.enter(Debugger::Present);
        assert_eq!(bed.vp.before_entry(), Before::Deliver);
        assert_eq!(bed.parked(), Some(Cause::Guest(TRIPLE_FAULT)));
        assert_eq!(bed.vp.before_entry(), Before::Enter);
    });
}

#[test]
fn the_vmm_does_not_get_a_breakpoint_that_looks_like_a_failure() {
    check(|| {
        let mut bed = Bed::new(Exits::GoToVmm, Guest::WithBreakpoint);
        bed.enter(Debugger::Present);
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        let failed = Scripted::Failed(EMULATION_FAILED);
        assert_eq!(bed.exit(failed, THERE), After::Again);
    });
}

#[test]
fn the_vp_parks_with_the_event_for_which_a_device_asks() {
    check(|| {
        let mut bed = Bed::new(Exits::AreFailures, Guest::Plain);
        bed.enter(Debugger::Absent);
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        assert_eq!(bed.exit(OUT, CODE), After::Handle);
        bed.vp.guest_event(RESET);
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        let completed = HookedVcpu::run(bed.vp.vcpu());
        assert_eq!(bed.vp.vcpu().told.last(), Some(&Told::Complete));
        bed.vp.after_exit(completed);
        bed.send(Command::Exit);
        bed.vp.before_entry();
        assert_eq!(bed.parked(), Some(Cause::Guest(RESET)));
    });
}

/// The signal of a late kick may have hidden the VMM's.
#[test]
fn the_vmm_looks_for_work_before_the_entry_if_a_signal_came_while_the_vp_was_parked() {
    check(|| {
        for (exits, before) in [
            (Exits::GoToVmm, Before::Interrupted),
            (Exits::AreFailures, Before::Enter),
        ] {
            let mut bed = Bed::new(exits, Guest::Plain);
            bed.call(|_| on_kick_signal());
            bed.enter(Debugger::Present);
            assert_eq!(bed.vp.before_entry(), before, "{exits:?}");
            assert_eq!(bed.vp.before_entry(), Before::Enter, "{exits:?}");
        }
    });
}

#[test]
fn the_controller_learns_once_that_the_vmm_has_moved_a_parked_vp() {
    check(|| {
        for (rip, moves) in [(CODE, 0), (CODE + 1, 1)] {
            for is_asked_meanwhile in [false, true] {
                let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
                bed.vmm_wants_thread(true);
                assert_eq!(bed.vp.before_entry(), Before::Interrupted);
                bed.vmm_wants_thread(false);
                bed.vp.vcpu().registers.general.rip = rip;
                let mut found = 0;
                if is_asked_meanwhile {
                    for _ in 0..2 {
                        bed.call(|_| {});
                        bed.vp.serve_away();
                    }
                    found += bed.moves();
                    assert_eq!(found, moves, "before the thread is back");
                }
                bed.enter(Debugger::Present);
                assert_eq!(bed.vp.before_entry(), Before::Enter);
                assert_eq!(found + bed.moves(), moves, "{rip:#x}, {is_asked_meanwhile}");
            }
        }
    });
}

#[test]
fn a_vp_whose_guest_has_halted_waits_for_its_kick() {
    check(|| {
        let bed = Bed::new(Exits::AreFailures, Guest::Plain);
        let (gate, mailbox) = (bed.gate.clone(), bed.mailbox.clone());
        let kicker = thread::spawn(move || {
            // The VP is not in the guest, so no signal is needed.
            let _ = gate.kick();
            mailbox.wake();
        });
        bed.vp.wait_for_kick();
        assert!(bed.gate.is_kicked());
        kicker.join().unwrap();
        // A kick that came first.
        bed.vp.wait_for_kick();
    });
}

/// A timer with something left to count.
fn counting() -> kvm_bindings::kvm_lapic_state {
    let mut page = kvm_bindings::kvm_lapic_state::default();
    const INITIAL_COUNT: usize = 0x380;
    const CURRENT_COUNT: usize = 0x390;
    (page.regs[INITIAL_COUNT], page.regs[CURRENT_COUNT]) = (100, 50);
    page
}

#[test]
fn the_guests_timers_are_held_in_a_stop_that_lasts() {
    check(|| {
        let rate = crate::arch::TscRate::from_khz(1_000_000).unwrap();
        let clocks = Box::new(FakeClocks::default());
        let time = Timekeeper::new(clocks, FreezeTime::On, Ok(rate));
        let mut bed = Bed::with_time(Exits::AreFailures, Guest::Plain, time);
        bed.vp.vcpu().local_apic = Some(Box::new(counting()));
        let (mailbox, time) = (bed.mailbox.clone(), bed.time.clone());
        let controller = thread::spawn(move || {
            while !time.has_counters() {
                thread::yield_now();
            }
            let writes_back = move |vp: &mut dyn ParkedVp| {
                vp.restart_counter().unwrap();
                assert!(!time.has_counters());
            };
            for command in [Command::Call(Box::new(writes_back)), Command::Exit] {
                mailbox.send(command).unwrap();
            }
        });
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        assert!(bed.vp.is_released());
        controller.join().unwrap();
    });
}

#[test]
fn a_vp_of_the_vmm_runs_without_a_trace_of_the_debugger_when_the_controller_has_ended() {
    check(|| {
        let mut bed = Bed::new(Exits::GoToVmm, Guest::WithBreakpoint);
        bed.enter(Debugger::Present);
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        assert_eq!(bed.exit(INT3, THERE), After::Again);
        bed.send(Command::Exit);
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        let Some(Told::Program(last)) = bed.vp.vcpu().told.last() else {
            panic!("{:?}", bed.vp.vcpu().told);
        };
        assert_eq!(last.int3_exits, Int3Exits::Off);
    });
}

/// Only `shuttle` knows when a signal arrives.
#[cfg(shuttle)]
#[test]
fn a_vp_of_the_vmm_gives_its_thread_away_at_each_signal() {
    use crate::sync::signals::Signals;
    check(|| {
        let mut bed = Bed::new(Exits::GoToVmm, Guest::Plain);
        bed.call(|_| Signals::here().send(|| {}));
        assert_eq!(bed.vp.before_entry(), Before::Interrupted);
    });
}

/// Only `shuttle` knows when a signal arrives.
#[cfg(shuttle)]
#[test]
fn a_late_kick_of_a_parked_vp_has_no_effect_on_a_thread_of_this_crate() {
    use crate::sync::mpsc;
    use crate::sync::signals::Signals;
    check(|| {
        let mut bed = Bed::new(Exits::AreFailures, Guest::Plain);
        let (mailbox, signals) = (bed.mailbox.clone(), Signals::here());
        let (parked, is_parked) = mpsc::channel();
        let controller = thread::spawn(move || {
            is_parked.recv().unwrap();
            signals.send(on_kick_signal);
            mailbox.send(Command::Exit).unwrap();
        });
        bed.call(move |_| parked.send(()).unwrap());
        assert_eq!(bed.vp.before_entry(), Before::Enter);
        assert!(bed.vp.is_released());
        controller.join().unwrap();
    });
}
