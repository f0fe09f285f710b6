//! A run loop of Cloud Hypervisor's shape: the thread of a vCPU holds a lock on the vCPU across `KVM_RUN`, and the VMM takes the same lock to read the vCPU's state. A
//! flag pauses all threads. The handler of the VMM's signal does nothing, so the VMM repeats the signal until each thread has answered.
//!
//! A debugger must not hold a vCPU inside the lock: the VMM's pause would wait for the debugger. So the vCPU parks in [`VpHook::before_entry`], outside the lock.

use crate::exits;
use crate::exits::Asked;
use crate::snapshot::VcpuState;
use crate::vmm::Event;
use crate::vmm::Parts;
use crate::vmm::Vcpus;
use kvm_ioctls::VcpuFd;
use small_pc::Devices;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::signal::Killable as _;
use vmm_sys_util::signal::SIGRTMIN;
use vmm_sys_util::signal::register_signal_handler;
use vp_runner::embed::AfterExit;
use vp_runner::embed::BeforeEntry;
use vp_runner::embed::Proceed;
use vp_runner::embed::VmHandle;
use vp_runner::embed::VpHook;

/// The time after which the VMM repeats its signal to a thread that has not answered.
const REPEAT: Duration = Duration::from_millis(10);

/// A vCPU under its lock.
type LockedVcpu = Arc<Mutex<VcpuFd>>;

/// What the VMM wants of all vCPU threads.
#[derive(Default)]
struct Wanted {
    /// How often the VMM has paused or resumed the threads. They are paused while the number is odd.
    turn: AtomicU64,
    end: AtomicBool,
}

impl Wanted {
    fn pause(&self) -> Option<u64> {
        let turn = self.turn.load(Ordering::SeqCst);
        (turn % 2 == 1).then_some(turn)
    }
}

/// The VMM's side of a vCPU thread.
struct VcpuHandle {
    vcpu: LockedVcpu,
    /// The turns for which the thread is paused. Closed by the end of the thread.
    paused: Receiver<u64>,
    thread: JoinHandle<()>,
}

/// The vCPU threads.
pub struct LockedLoops {
    wanted: Arc<Wanted>,
    handles: Vec<VcpuHandle>,
}

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl VcpuHandle {
    /// Repeats the signal until the thread is paused for this turn or has ended.
    fn bring_out(&self, turn: u64) {
        loop {
            // A thread that has just ended cannot be signalled, and its channel is closed.
            let _ = self.thread.kill(SIGRTMIN());
            self.thread.thread().unpark();
            match self.paused.recv_timeout(REPEAT) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(paused) if paused == turn => return,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn lock(vcpu: &Mutex<VcpuFd>) -> MutexGuard<'_, VcpuFd> {
    vcpu.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vcpus for LockedLoops {
    fn start(parts: Parts) -> Result<Self, Box<dyn Error>> {
        register_signal_handler(SIGRTMIN(), nothing)?;
        let mut loops = Self {
            wanted: Arc::default(),
            handles: Vec::new(),
        };
        // The threads begin paused.
        loops.wanted.turn.store(1, Ordering::SeqCst);
        for (id, fd) in (0..).zip(parts.vcpus) {
            let vcpu = Arc::new(Mutex::new(fd));
            let (sender, paused) = mpsc::channel();
            let (debugger, events) = (parts.debugger.clone(), parts.events.clone());
            let (devices, wanted) = (parts.devices.clone(), loops.wanted.clone());
            let locked = vcpu.clone();
            let begin = move || {
                // A hook belongs to the thread of its vCPU.
                let registered = debugger.register_vcpu(id, &lock(&locked));
                let hook = match registered {
                    Ok(hook) => hook,
                    Err(why) => return fail(&events, format!("vCPU {id}: {why}")),
                };
                let mut thread = VcpuThread {
                    id,
                    vcpu: locked,
                    hook,
                    devices,
                    debugger,
                    events,
                    wanted,
                    paused: sender,
                };
                thread.run();
            };
            let thread = thread::Builder::new()
                .name(format!("vcpu {id}"))
                .spawn(begin)?;
            loops.handles.push(VcpuHandle {
                vcpu,
                paused,
                thread,
            });
        }
        Ok(loops)
    }

    fn pause(&mut self) {
        if self.wanted.pause().is_none() {
            let turn = self.wanted.turn.fetch_add(1, Ordering::SeqCst) + 1;
            self.handles
                .iter()
                .for_each(|handle| handle.bring_out(turn));
        }
    }

    fn resume(&mut self) {
        if self.wanted.pause().is_some() {
            self.wanted.turn.fetch_add(1, Ordering::SeqCst);
        }
        for handle in &self.handles {
            handle.thread.thread().unpark();
        }
    }

    fn save(&mut self) -> Result<Vec<VcpuState>, Box<dyn Error>> {
        let mut states = Vec::new();
        for handle in &self.handles {
            states.push(VcpuState::read(&lock(&handle.vcpu))?);
        }
        Ok(states)
    }

    fn end(mut self) {
        self.wanted.end.store(true, Ordering::SeqCst);
        self.resume();
        for handle in self.handles {
            // No thread pauses for this turn, so this waits for the end.
            handle.bring_out(u64::MAX);
            // The panic of a thread is on standard error.
            let _ = handle.thread.join();
        }
    }
}

fn fail(events: &Sender<Event>, why: String) {
    // The main thread may have ended for another reason.
    let _ = events.send(Event::Failed(why));
}

/// A vCPU on its thread.
struct VcpuThread {
    id: u32,
    vcpu: LockedVcpu,
    hook: VpHook,
    devices: Arc<Devices>,
    debugger: VmHandle,
    events: Sender<Event>,
    wanted: Arc<Wanted>,
    paused: Sender<u64>,
}

/// Whether the vCPU runs on.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    /// The guest has ended. The thread waits for the VMM.
    Nowhere,
}

impl VcpuThread {
    fn run(&mut self) {
        let mut goes = Goes::On;
        // What the exit asks for that a debugger looks at first.
        let mut held = None;
        loop {
            self.wait_while_paused();
            if self.wanted.end.load(Ordering::SeqCst) {
                return;
            }
            if goes == Goes::Nowhere {
                thread::park();
                continue;
            }
            match self.hook.before_entry() {
                BeforeEntry::Enter => {}
                // Look again for what the VMM wants.
                BeforeEntry::Interrupted => continue,
                BeforeEntry::Deliver => {
                    goes = self.act(held.take());
                    continue;
                }
            }
            let mut vcpu = lock(&self.vcpu);
            let exit = vcpu.run();
            let result = match &exit {
                Ok(_) => Ok(()),
                Err(error) => Err(io::Error::from_raw_os_error(error.errno())),
            };
            let after = self.hook.after_exit(&result);
            if after == AfterExit::Again {
                continue;
            }
            let asked = match exit {
                Ok(exit) => exits::serve(exit, &self.devices),
                Err(error) => failure(error.errno()),
            };
            drop(vcpu);
            match after {
                AfterExit::Hold => held = asked,
                AfterExit::Handle | AfterExit::Again => goes = self.act(asked),
            }
        }
    }

    fn wait_while_paused(&self) {
        let mut announced = None;
        while let Some(turn) = self.wanted.pause() {
            if announced.replace(turn) != Some(turn) {
                // The VMM may have gone.
                let _ = self.paused.send(turn);
            }
            thread::park();
        }
    }

    /// Acts on what an exit asks for. A debugger that wants to see a device's event holds the event.
    fn act(&self, asked: Option<Asked>) -> Goes {
        match asked {
            None => return Goes::On,
            Some(Asked::End(why)) => fail(&self.events, why),
            Some(Asked::Device(kind)) => match self.debugger.guest_event(kind, Some(self.id)) {
                // `before_entry` parks this vCPU. `on_continue` passes the event to the main thread later.
                Proceed::Held => return Goes::On,
                Proceed::Now => {
                    // The main thread may have ended for another reason.
                    let _ = self.events.send(Event::Guest(kind));
                }
            },
        }
        Goes::Nowhere
    }
}

fn failure(errno: i32) -> Option<Asked> {
    match errno {
        libc::EINTR | libc::EAGAIN => None,
        _ => {
            let error = io::Error::from_raw_os_error(errno);
            Some(Asked::End(format!("KVM_RUN failed: {error}")))
        }
    }
}
