//! A VMM with run loops of its own: the hook is in the loop of each vCPU's thread, and an operator pauses the VM, takes snapshots, and takes vCPUs away and back.

use super::vcpu::HookVcpu;
use super::vcpu::SharedVcpu;
use super::world::World;
use super::*;
use crate::control::guest_event::GuestEvent;
use crate::control::run_gate::RunGate;
use crate::controller::AddedVp;
use crate::controller::Causer;
use crate::hook::After;
use crate::hook::Before;
use crate::hook::around::Around;
use crate::hook::mailbox::Mailbox;
use crate::kvm::immediate_exit::on_kick_signal;
use crate::kvm::kick::Kick;
use crate::sync::Mutex;
use crate::sync::MutexGuard;
use crate::sync::a_signal_may_arrive;
use crate::sync::signals::Signals;
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use vmm_core_defs::regs::XFeatures;

crate::sync::thread_local! {
    /// `kvm_run.immediate_exit` of this thread's vCPU, for the handler of the VMM's signal.
    static FLAG: Cell<Option<&'static AtomicU8>> = Cell::new(None);
    /// Whether the VMM has set the flag, which was clear.
    static SET_BY_VMM: Cell<bool> = Cell::new(false);
}

/// The handler of the VMM's own signal.
fn on_signal_of_vmm() {
    if let Some(flag) = FLAG.with(Cell::get)
        && flag.swap(1, Ordering::Relaxed) == 0
    {
        SET_BY_VMM.with(|set| set.set(true));
    }
}

/// The kick of this crate, by a signal of its own.
#[derive(Default)]
pub(super) struct SignalOfTest(Mutex<HashMap<VpIndex, Arc<Signals>>>);

impl Kick for SignalOfTest {
    fn register(&self, vp: VpIndex) -> io::Result<()> {
        self.0.lock().unwrap().insert(vp, Signals::here());
        Ok(())
    }

    fn unregister(&self, vp: VpIndex) {
        self.0.lock().unwrap().remove(&vp);
    }

    fn kick(&self, vp: VpIndex) {
        if let Some(thread) = self.0.lock().unwrap().get(&vp) {
            thread.send(on_kick_signal);
        }
    }

    /// A lost kick is not repeated.
    fn kick_again(&self, _: VpIndex) {}
}

/// The form of the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The form `run`, without a lock.
    Run,
    /// The form `before_entry` and `after_exit`, with a lock around the `KVM_RUN`.
    Calls,
}

/// What the VMM does with `immediate_exit` when it looks for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clears {
    /// The VMM clears the flag if it has set the flag.
    ItsOwn,
    /// The VMM clears the flag in any case.
    Any,
}

/// See the module.
pub(super) struct Vmm {
    world: Arc<World>,
    shared: Arc<VpShared>,
    held: HeldEvents,
    form: Form,
    clears: Clears,
    vcpus: Vec<Vcpu>,
    state: Mutex<State>,
    changed: shuttle::sync::Condvar,
}

#[derive(Default)]
struct State {
    is_paused: bool,
    is_ending: bool,
    vcpus: Vec<Wanted>,
    /// The number of vCPUs that have registered at least once.
    known: usize,
    /// The number of pauses that have ended.
    pauses: u32,
    operator_is_done: bool,
    /// The operator lets the VM stay paused until the debugger has finished what it does.
    stays_paused: bool,
    debugger: DebuggerState,
}

/// What the operator knows of the debugger.
#[derive(Default)]
struct DebuggerState {
    /// The number of things that it has finished.
    finished: u32,
    /// It waits for the guest, or has gone: it finishes nothing while the VM is paused.
    needs_guest: bool,
}

/// The operator's request to a vCPU's thread, and the state of the thread.
#[derive(Default)]
struct Wanted {
    unplug: bool,
    is_out: bool,
    /// The vCPU left the guest for an access to a device, which only its next `KVM_RUN` completes.
    is_in_access: bool,
    is_gone: bool,
    mailbox: Option<(Arc<Mailbox>, Arc<RunGate>)>,
    vcpu: Option<SharedVcpu>,
    signals: Option<Arc<Signals>>,
}

#[derive(Default)]
struct Vcpu {
    /// The lock that a thread holds during a `KVM_RUN`.
    lock: Mutex<()>,
}

impl Vmm {
    pub(super) fn new(world: &Arc<World>, shared: Arc<VpShared>, held: HeldEvents) -> Arc<Self> {
        let count = world.vps().count();
        let state = State {
            vcpus: std::iter::repeat_with(Wanted::default)
                .take(count)
                .collect(),
            ..State::default()
        };
        Arc::new(Self {
            world: world.clone(),
            shared,
            held,
            form: if thread_rng().gen_bool(0.5) {
                Form::Run
            } else {
                Form::Calls
            },
            clears: if thread_rng().gen_bool(0.7) {
                Clears::ItsOwn
            } else {
                Clears::Any
            },
            vcpus: std::iter::repeat_with(Vcpu::default).take(count).collect(),
            state: Mutex::new(state),
            changed: shuttle::sync::Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until the condition holds.
    fn wait(&self, until: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.state();
        self.changed
            .wait_while(state, |state| !until(state))
            .unwrap()
    }

    // Methods for the threads of the vCPUs.

    /// The thread of one vCPU.
    pub(super) fn vcpu_thread(&self, vp: VpIndex) {
        loop {
            self.life(vp);
            let mut state = self.state();
            let wanted = &mut state.vcpus[vp.index() as usize];
            (wanted.mailbox, wanted.signals, wanted.is_gone) = (None, None, true);
            wanted.vcpu = None;
            self.changed.notify_all();
            let state = self.wait_for_use_again(state, vp);
            if state.is_ending {
                return;
            }
        }
    }

    fn wait_for_use_again<'a>(
        &self,
        state: MutexGuard<'a, State>,
        vp: VpIndex,
    ) -> MutexGuard<'a, State> {
        let is_unplugged =
            |state: &mut State| state.vcpus[vp.index() as usize].unplug && !state.is_ending;
        self.changed.wait_while(state, is_unplugged).unwrap()
    }

    /// The life of a vCPU, from its creation to its end.
    fn life(&self, vp: VpIndex) {
        let index = vp.index() as usize;
        // The controller gets VPs in the order of their indexes.
        drop(self.wait(|state| state.known >= index));
        let vcpu = SharedVcpu::new(&self.world, vp);
        FLAG.with(|flag| flag.set(Some(vcpu.flag())));
        SET_BY_VMM.with(|set| set.set(false));
        self.world.change(vp, |record| {
            record.is_with_vmm = true;
            record.visits += 1;
        });
        let added = self
            .shared
            .add(vp, vcpu.for_hook(), XFeatures::default(), paging_limits());
        let AddedVp {
            gate,
            mailbox,
            seat,
        } = added.expect("nothing can fail");
        {
            let mut state = self.state();
            let wanted = &mut state.vcpus[index];
            wanted.mailbox = Some((mailbox, gate));
            wanted.signals = Some(Signals::here());
            wanted.vcpu = Some(vcpu.clone());
            wanted.is_gone = false;
            state.known = state.known.max(index + 1);
        }
        self.changed.notify_all();
        self.world.change(vp, |record| {
            *record = world::Record {
                is_here: true,
                awaits_event: false,
                ..*record
            };
        });
        // The debugger may see the vCPU before its thread runs it.
        for _ in 0..thread_rng().gen_range(0..20) {
            thread::yield_now();
        }
        let hook = Around::new(seat, self.shared.kick.clone());
        let mut hook = hook.expect("nothing can fail");
        while self.looks_for_work(vp, &vcpu) {
            self.world.change(vp, |record| record.is_with_vmm = false);
            let result = match self.form {
                Form::Run => hook.run(|| vcpu.run().map_err(io::Error::from_raw_os_error)),
                Form::Calls => self.calls(vp, &mut hook, &vcpu),
            };
            self.world.change(vp, |record| {
                record.is_with_vmm = true;
                record.visits += 1;
            });
            match result {
                Ok(()) => {
                    assert!(
                        vcpu.has_device_exit(),
                        "an exit of the debugger's for the VMM"
                    );
                    self.serve_device(vp);
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINTR)),
            }
        }
        self.world.change(vp, |record| {
            record.is_here = false;
            (record.slots, record.steps) = Default::default();
        });
        drop(hook);
        FLAG.with(|flag| flag.set(None));
    }

    /// The device that the vCPU has accessed resets the machine at times.
    fn serve_device(&self, vp: VpIndex) {
        if thread_rng().gen_bool(0.8) {
            return;
        }
        self.world.change(vp, |record| record.awaits_event = true);
        if !self.announce_reset(vp) {
            self.world.change(vp, |record| record.awaits_event = false);
        }
    }

    /// A device resets the machine, and this vCPU is the cause. Returns whether a debugger sees the event first.
    fn announce_reset(&self, vp: VpIndex) -> bool {
        let vcpu = self.state().vcpus[vp.index() as usize].mailbox.clone();
        let Some((_, gate)) = vcpu else {
            return false;
        };
        let causer = Causer {
            vp,
            gate: &gate,
            signal: &*self.shared.kick,
        };
        let event = GuestEvent::Reset { vp: Some(vp) };
        self.held.hold(event, Some(causer), &self.shared.events)
    }

    fn calls(&self, vp: VpIndex, hook: &mut Around<HookVcpu>, vcpu: &SharedVcpu) -> io::Result<()> {
        loop {
            match hook.before_entry() {
                Before::Enter => {}
                Before::Interrupted => return Err(io::Error::from_raw_os_error(libc::EINTR)),
                Before::Deliver => panic!("this guest has no event"),
            }
            let lock = self.vcpus[vp.index() as usize].lock.lock().unwrap();
            let result = vcpu.run().map_err(io::Error::from_raw_os_error);
            drop(lock);
            match hook.after_exit(&result) {
                After::Handle => return result,
                After::Again => {}
                After::Hold => panic!("this guest has no event"),
            }
        }
    }

    /// Looks for work between two `KVM_RUN`s. Returns `false` if the vCPU's thread has to end.
    fn looks_for_work(&self, vp: VpIndex, vcpu: &SharedVcpu) -> bool {
        let index = vp.index() as usize;
        a_signal_may_arrive();
        let set = SET_BY_VMM.with(|set| set.replace(false));
        match self.clears {
            Clears::Any => vcpu.flag().store(0, Ordering::Relaxed),
            Clears::ItsOwn if set => {
                let was = vcpu.flag().swap(0, Ordering::Relaxed);
                assert_eq!(was, 1, "an `immediate_exit` of the VMM's was cleared");
            }
            Clears::ItsOwn => {}
        }
        a_signal_may_arrive();
        let mut state = self.state();
        if state.is_paused && thread_rng().gen_bool(0.3) {
            Self::move_parked(&state.vcpus[index], vcpu);
        }
        while state.is_paused && !state.vcpus[index].unplug && !state.is_ending {
            state.vcpus[index].is_out = true;
            state.vcpus[index].is_in_access = vcpu.has_device_exit();
            self.changed.notify_all();
            state = self.changed.wait(state).unwrap();
        }
        state.vcpus[index].is_out = false;
        !state.vcpus[index].unplug && !state.is_ending
    }

    /// The VMM may change the registers of a vCPU whose thread it has.
    fn move_parked(wanted: &Wanted, vcpu: &SharedVcpu) {
        let mailbox = wanted.mailbox.as_ref();
        if mailbox.is_some_and(|(mailbox, _)| mailbox.is_held_by_vmm()) {
            let index = thread_rng().gen_range(0..world::INSTRUCTIONS.len());
            let rip = world::CODE + world::INSTRUCTIONS[index];
            say(|| format!("the VMM moves a vCPU to {rip:#x}"));
            vcpu.move_to(rip);
        }
    }

    /// RIP of the vCPU, if the vCPU exists and is not in a `KVM_RUN`.
    pub(super) fn rip(&self, vp: VpIndex) -> Option<u64> {
        let state = self.state();
        state.vcpus[vp.index() as usize].vcpu.as_ref()?.rip()
    }

    /// Sends the VMM's signal to the threads of the vCPUs.
    fn signal(&self, which: impl Fn(usize, &State) -> bool) {
        let state = self.state();
        let wanted = state.vcpus.iter().enumerate();
        let wanted = wanted.filter(|(index, _)| which(*index, &state));
        let signals: Vec<_> = wanted
            .filter_map(|(_, vcpu)| vcpu.signals.clone())
            .collect();
        drop(state);
        for signals in signals {
            signals.send(on_signal_of_vmm);
        }
    }

    // Methods for the operator.

    /// Pauses the VM, takes snapshots, changes the number of vCPUs and has devices that reset the machine, while the debugger works.
    pub(super) fn operate(&self) {
        for _ in 0..thread_rng().gen_range(0..4) {
            for _ in 0..thread_rng().gen_range(0..60) {
                thread::yield_now();
            }
            match thread_rng().gen_range(0..10) {
                0..6 => self.pause(),
                6..8 => self.unplug(),
                _ => self.device_resets(),
            }
        }
        self.state().operator_is_done = true;
        self.changed.notify_all();
    }

    fn pause(&self) {
        say(|| "the VMM pauses".into());
        self.state().is_paused = true;
        self.signal(|_, _| true);
        // The debugger cannot delay any of these actions.
        let all_out = |state: &State| state.vcpus.iter().all(|vcpu| vcpu.is_out || vcpu.is_gone);
        drop(self.wait(all_out));
        let locks: Vec<_> = self
            .vcpus
            .iter()
            .map(|vcpu| vcpu.lock.lock().unwrap())
            .collect();
        if thread_rng().gen_bool(0.7) {
            self.snapshot();
        }
        drop(locks);
        if thread_rng().gen_bool(0.5) {
            self.stay_paused();
        }
        say(|| "the VMM resumes".into());
        let mut state = self.state();
        state.is_paused = false;
        state.pauses += 1;
        for vcpu in &mut state.vcpus {
            vcpu.is_out = false;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A debugger needs no thread of the VMM: it attaches, stops the guest, changes breakpoints, looks at vCPUs and leaves while the VM is paused. Only an access to a device has to be
    /// complete.
    fn stay_paused(&self) {
        let mut state = self.state();
        let mut vcpus = state.vcpus.iter();
        if vcpus.any(|vcpu| vcpu.is_in_access && !vcpu.is_gone) {
            return;
        }
        state.stays_paused = true;
        let before = state.debugger.finished;
        self.changed.notify_all();
        let is_busy =
            |state: &mut State| state.debugger.finished == before && !state.debugger.needs_guest;
        let mut state = self.changed.wait_while(state, is_busy).unwrap();
        state.stays_paused = false;
    }

    /// The debugger has finished a thing that it can do while the VM is paused.
    pub(super) fn debugger_has_finished(&self) {
        self.state().debugger.finished += 1;
        self.changed.notify_all();
    }

    /// The debugger waits for the guest from now on, or no more.
    pub(super) fn debugger_needs_guest(&self, needs_guest: bool) {
        self.state().debugger.needs_guest = needs_guest;
        self.changed.notify_all();
    }

    /// Does the same as `VmHandle::quiesce` and the drop of its result.
    fn snapshot(&self) {
        self.world.set_in_snapshot(true);
        self.shared.quiesce();
        for _ in 0..thread_rng().gen_range(1..30) {
            self.world.check_memory("in a snapshot");
            let mailboxes: Vec<_> = self
                .state()
                .vcpus
                .iter()
                .map(|vcpu| vcpu.mailbox.clone())
                .collect();
            for (vp, mailbox) in self.world.vps().zip(mailboxes) {
                if mailbox.is_some_and(|(mailbox, _)| mailbox.is_held_by_vmm()) {
                    self.world.check_bare(vp, "in a snapshot");
                }
            }
            thread::yield_now();
        }
        self.world.set_in_snapshot(false);
        self.shared.unquiesce();
    }

    /// A device that a vCPU has accessed resets the machine later, on a thread of its own.
    fn device_resets(&self) {
        let ran = self
            .world
            .vps()
            .find(|vp| self.world.record(*vp).executed > 0);
        if let Some(vp) = ran {
            say(|| format!("a device that VP {vp} has accessed resets the machine"));
            self.announce_reset(vp);
        }
    }

    /// Ends the thread of a vCPU, and creates the vCPU anew in some runs.
    fn unplug(&self) {
        let index = thread_rng().gen_range(0..self.vcpus.len());
        say(|| format!("the VMM takes vCPU {index} away"));
        self.state().vcpus[index].unplug = true;
        self.changed.notify_all();
        self.signal(|which, _| which == index);
        drop(self.wait(|state| state.vcpus[index].is_gone));
        let is_last = self.state().vcpus.iter().all(|vcpu| vcpu.is_gone);
        if is_last || thread_rng().gen_bool(0.7) {
            self.state().vcpus[index].unplug = false;
            self.changed.notify_all();
        }
    }

    /// Waits until the VM was paused once more, stays paused for the debugger, or is not paused.
    pub(super) fn wait_for_a_pause(&self) {
        let before = self.state().pauses;
        drop(
            self.wait(|state| {
                state.pauses > before || state.stays_paused || state.operator_is_done
            }),
        );
    }

    /// Ends the VM.
    pub(super) fn end(&self) {
        self.state().is_ending = true;
        self.changed.notify_all();
        self.signal(|_, _| true);
    }
}
