//! A run loop of Firecracker's shape: the thread of a vCPU is a machine of states, which begins in `Paused`, gets orders over a channel and answers each. A signal of the
//! VMM's brings the thread out of `KVM_RUN`.
//!
//! The debugger parks a vCPU inside [`VpHook::run`]. An order and the signal end this wait too, as if `KVM_RUN` had returned `EINTR`, so the states know nothing of the
//! debugger.

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
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;
use std::thread::JoinHandle;
use vmm_sys_util::signal::Killable as _;
use vmm_sys_util::signal::SIGRTMIN;
use vmm_sys_util::signal::register_signal_handler;
use vp_runner::embed::Proceed;
use vp_runner::embed::VmHandle;
use vp_runner::embed::VpHook;
use vp_runner::embed::on_kick_signal;

/// An order to a vCPU thread. Each but `Finish` is answered.
enum Order {
    Pause,
    Resume,
    /// Only while the vCPU is paused.
    Save,
    Finish,
}

/// The answer to an order.
enum Answer {
    Paused,
    Resumed,
    Saved(Result<Box<VcpuState>, kvm_ioctls::Error>),
}

/// The states of a vCPU thread.
#[derive(Clone, Copy)]
enum State {
    Paused,
    Running,
    Finished,
}

/// The VMM's side of a vCPU thread.
struct VcpuHandle {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    thread: JoinHandle<()>,
}

/// The vCPU threads.
pub struct StateLoops(Vec<VcpuHandle>);

/// The handler of the VMM's signal sets `immediate_exit` of the vCPU that the thread has. So a signal that comes just before a `KVM_RUN` is not lost, and one is enough.
extern "C" fn leave_guest(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    on_kick_signal();
}

impl VcpuHandle {
    /// The order is in the channel before the signal arrives.
    fn send(&self, order: Order) {
        // A thread that has failed takes no order.
        let _ = self.orders.send(order);
        let _ = self.thread.kill(SIGRTMIN());
    }
}

impl StateLoops {
    /// Sends the order to all threads first, so that they carry it out at the same time.
    fn all(&self, order: impl Fn() -> Order) -> Vec<Answer> {
        let Self(handles) = self;
        handles.iter().for_each(|handle| handle.send(order()));
        let answers = handles.iter().map(|handle| handle.answers.recv());
        // A thread that has failed does not answer.
        answers.filter_map(Result::ok).collect()
    }
}

impl Vcpus for StateLoops {
    fn start(parts: Parts) -> Result<Self, Box<dyn Error>> {
        register_signal_handler(SIGRTMIN(), leave_guest)?;
        let mut handles = Vec::new();
        for (id, fd) in (0..).zip(parts.vcpus) {
            let (orders, receiver) = mpsc::channel();
            let (sender, answers) = mpsc::channel();
            let (debugger, events) = (parts.debugger.clone(), parts.events.clone());
            let devices = parts.devices.clone();
            let begin = move || {
                // A hook belongs to the thread of its vCPU.
                let hook = match debugger.register_vcpu(id, &fd) {
                    Ok(hook) => hook,
                    Err(why) => return fail(&events, format!("vCPU {id}: {why}")),
                };
                let vcpu = Vcpu {
                    id,
                    fd,
                    hook,
                    devices,
                    debugger,
                    events,
                    orders: receiver,
                    answers: sender,
                };
                vcpu.run();
            };
            let thread = thread::Builder::new()
                .name(format!("vcpu {id}"))
                .spawn(begin)?;
            handles.push(VcpuHandle {
                orders,
                answers,
                thread,
            });
        }
        Ok(Self(handles))
    }

    fn pause(&mut self) {
        self.all(|| Order::Pause);
    }

    fn resume(&mut self) {
        self.all(|| Order::Resume);
    }

    fn save(&mut self) -> Result<Vec<VcpuState>, Box<dyn Error>> {
        let mut states = Vec::new();
        for answer in self.all(|| Order::Save) {
            if let Answer::Saved(state) = answer {
                states.push(*state?);
            }
        }
        Ok(states)
    }

    fn end(self) {
        let Self(handles) = self;
        handles.iter().for_each(|handle| handle.send(Order::Finish));
        for handle in handles {
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
struct Vcpu {
    id: u32,
    fd: VcpuFd,
    hook: VpHook,
    devices: Arc<Devices>,
    debugger: VmHandle,
    events: Sender<Event>,
    orders: Receiver<Order>,
    answers: Sender<Answer>,
}

impl Vcpu {
    fn run(mut self) {
        let mut state = State::Paused;
        loop {
            state = match state {
                State::Paused => self.paused(),
                State::Running => self.running(),
                State::Finished => return,
            };
        }
    }

    /// Waits for an order.
    fn paused(&mut self) -> State {
        match self.orders.recv() {
            Ok(order) => self.obey(order, State::Paused),
            // The VMM has gone.
            Err(_) => State::Finished,
        }
    }

    /// Lets the guest run up to its next exit, and looks for an order.
    fn running(&mut self) -> State {
        let (fd, devices) = (&mut self.fd, &*self.devices);
        let mut asked = None;
        let result = self.hook.run(|| {
            // The exit borrows the vCPU, so it is served here. The hook may call this several times, and the last exit counts.
            asked = exits::serve(fd.run()?, devices);
            Ok(())
        });
        let state = match result {
            Ok(()) => self.act(asked),
            Err(error) => self.interrupted(&error),
        };
        match self.orders.try_recv() {
            Ok(order) => self.obey(order, state),
            Err(_) => state,
        }
    }

    fn obey(&mut self, order: Order, state: State) -> State {
        let (answer, state) = match order {
            Order::Pause => (Answer::Paused, State::Paused),
            Order::Resume => (Answer::Resumed, State::Running),
            Order::Save => {
                let saved = VcpuState::read(&self.fd).map(Box::new);
                (Answer::Saved(saved), state)
            }
            Order::Finish => return State::Finished,
        };
        // The VMM may have gone.
        let _ = self.answers.send(answer);
        state
    }

    /// Acts on what an exit asks for. A debugger that wants to see a device's event holds the event.
    fn act(&self, asked: Option<Asked>) -> State {
        match asked {
            None => return State::Running,
            Some(Asked::End(why)) => fail(&self.events, why),
            Some(Asked::Device(kind)) => match self.debugger.guest_event(kind, Some(self.id)) {
                // The next call of the hook parks this vCPU. `on_continue` passes the event to the main thread later.
                Proceed::Held => return State::Running,
                Proceed::Now => {
                    // The main thread may have ended for another reason.
                    let _ = self.events.send(Event::Guest(kind));
                }
            },
        }
        State::Paused
    }

    fn interrupted(&self, error: &io::Error) -> State {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => State::Running,
            _ => {
                fail(&self.events, format!("vCPU {}: {error}", self.id));
                State::Paused
            }
        }
    }
}
