//! A VMM with run loops of its own, which hosts the debugger by hooks at `KVM_RUN`. It has the shapes of the VMMs that people use: one that parks inside the run,
//! as Firecracker would, and one that holds a lock across the run, as Cloud Hypervisor does.
//!
//! Its vCPU threads have a seccomp filter ([`filter`]).
//!
//! The environment variable `TRAPGATE_TEST_LOOPS=run` or `=lock` makes every test machine run its vCPUs so.

pub mod filter;

use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::GuestEventKind;
use vmm_sys_util::signal::Killable;
use vmm_sys_util::signal::register_signal_handler;
use vp_runner::embed::AfterExit;
use vp_runner::embed::BeforeEntry;
use vp_runner::embed::Proceed;
use vp_runner::embed::VmHandle;
use vp_runner::embed::VpHook;
use vp_runner::machine::DeviceOutcome;
use vp_runner::machine::Machine;

/// Where a parked VP waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// In [`VpHook::run`].
    InsideRun,
    /// In [`VpHook::before_entry`], outside the lock that the VMM holds across `KVM_RUN`.
    OutsideTheLock,
}

impl Shape {
    /// The shape that the environment asks for. `None`: the runner has the vCPUs.
    pub fn of_environment() -> Option<Self> {
        match std::env::var("TRAPGATE_TEST_LOOPS").as_deref() {
            Ok("run") => Some(Self::InsideRun),
            Ok("lock") => Some(Self::OutsideTheLock),
            Ok(other) => panic!("TRAPGATE_TEST_LOOPS={other}: use run or lock"),
            Err(_) => None,
        }
    }
}

/// An order of the VMM to one of its vCPU threads.
enum Order {
    /// Stay out of the guest until the sender of `over` is dropped.
    Pause {
        paused: mpsc::Sender<()>,
        over: mpsc::Receiver<()>,
    },
    /// Call this. The argument makes one entry into the guest, and serves no device.
    Call(OnThread),
    /// End the thread.
    Exit,
}

/// A function that a vCPU thread calls with its entry into the guest.
pub type OnThread = Box<dyn FnOnce(&mut dyn FnMut()) + Send>;

/// An exit that the hook has passed to the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenExit {
    /// A port was written or read.
    Port(u16),
    /// An address without memory was accessed.
    Mmio(u64),
    /// `KVM_EXIT_SHUTDOWN`.
    Shutdown,
    /// `KVM_EXIT_INTERNAL_ERROR` or `KVM_EXIT_FAIL_ENTRY`.
    Broken,
    /// `KVM_EXIT_HLT`.
    Halt,
    /// Any other exit.
    Other,
    /// `KVM_RUN` failed with this error number. `EINTR` and `EAGAIN` are not recorded.
    Failed(i32),
}

/// What the VMM's devices asked for, and the exits that the VMM got.
#[derive(Debug, Default)]
pub struct Record {
    /// The exits, with the number of the vCPU.
    pub exits: Vec<(u32, SeenExit)>,
    /// The events on which the VMM acted at once.
    pub acted: Vec<GuestEventKind>,
}

impl Record {
    /// The VMM acts on an event. A power-off ends the debugger.
    pub fn act(&mut self, kind: GuestEventKind, vm: &VmHandle) {
        self.acted.push(kind);
        if kind == GuestEventKind::PowerOff {
            vm.stop();
        }
    }
}

/// Whether the VMM of the environment's shape has the machine, so that a test of the runner's own resets has no subject. Prints a skip then.
pub fn vmm_resets() -> bool {
    let own = Shape::of_environment().is_some();
    if own {
        println!("SKIP: the VMM resets the machine, and not the runner");
    }
    own
}

/// A vCPU thread of the VMM.
struct Vcpu {
    fd: Arc<Mutex<VcpuFd>>,
    orders: mpsc::Sender<Order>,
    /// Whether there are orders.
    ordered: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The VMM's own signal, whose handler does nothing, as in Cloud Hypervisor and alioth. The VMM repeats it until the vCPU has answered.
const SIGNAL_OFFSET: i32 = 7;
const REPEAT: Duration = Duration::from_millis(1);

extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// See the module.
pub struct OwnLoops {
    /// By index.
    vcpus: Mutex<Vec<Vcpu>>,
    /// What the VMM has seen.
    pub record: Arc<Mutex<Record>>,
    vm: VmHandle,
    machine: Arc<dyn Machine>,
    shape: Shape,
}

impl OwnLoops {
    /// A VMM without vCPUs.
    pub fn new(
        vm: VmHandle,
        machine: Arc<dyn Machine>,
        record: Arc<Mutex<Record>>,
        shape: Shape,
    ) -> Self {
        register_signal_handler(signal(), nothing).expect("a signal handler");
        Self {
            vcpus: Mutex::default(),
            record,
            vm,
            machine,
            shape,
        }
    }

    /// Powers a vCPU on and starts its thread. `id` is the VMM's identifier, and `index` that of the machine. The vCPU with the largest index comes first.
    pub fn start_vcpu(&self, id: u32, index: u32, fd: VcpuFd) {
        let (orders, receiver) = mpsc::channel();
        let ordered = Arc::new(AtomicBool::new(false));
        let fd = Arc::new(Mutex::new(fd));
        let (ready, is_ready) = mpsc::channel();
        let run = {
            let (fd, ordered, vm) = (fd.clone(), ordered.clone(), self.vm.clone());
            let (machine, record, shape) = (self.machine.clone(), self.record.clone(), self.shape);
            move || {
                let index = VpIndex::new(index);
                let hook = {
                    let fd = fd.lock().expect("the vCPU");
                    machine.init_vp(index, &fd).expect("a power-on state");
                    filter::install_before_registration();
                    vm.register_vcpu(id, &fd).expect("a registered vCPU")
                };
                filter::install_after_registration();
                ready.send(()).expect("the VMM waits");
                let mut thread = VcpuThread {
                    id,
                    index,
                    vm,
                    machine,
                    record,
                    ordered,
                    orders: receiver,
                    hook,
                    fd,
                    shape,
                    goes: Goes::On,
                };
                match shape {
                    Shape::InsideRun => thread.loop_inside(),
                    Shape::OutsideTheLock => thread.loop_outside(),
                }
            }
        };
        let thread = thread::spawn(run);
        is_ready.recv().expect("the vCPU thread has begun");
        let vcpu = Vcpu {
            fd,
            orders,
            ordered,
            thread: Some(thread),
        };
        self.vcpus.lock().expect("the vCPUs").insert(0, vcpu);
    }

    /// Pauses every vCPU, as a VMM does for its own user. The vCPUs stay out of the guest until the result is dropped.
    ///
    /// # Panics
    /// If a vCPU does not pause within ten seconds.
    pub fn pause(&self) -> Paused {
        let vcpus = self.vcpus.lock().expect("the vCPUs");
        let mut over = Vec::new();
        for vcpu in &*vcpus {
            let (send, receive) = mpsc::channel();
            let (paused, is_paused) = mpsc::channel();
            over.push(send);
            let order = Order::Pause {
                paused,
                over: receive,
            };
            vcpu.order(order, &is_paused);
            // Cloud Hypervisor takes the lock of a paused vCPU.
            drop(vcpu.fd.lock().expect("the vCPU"));
        }
        Paused { _over: over }
    }

    /// Sets RIP of a vCPU that is paused, as the loading of a snapshot does.
    pub fn move_vcpu(&self, position: usize, rip: u64) {
        let vcpus = self.vcpus.lock().expect("the vCPUs");
        let fd = vcpus[position].fd.lock().expect("the vCPU");
        let mut regs = fd.get_regs().expect("registers");
        regs.rip = rip;
        fd.set_regs(&regs).expect("registers");
    }

    /// Has the first vCPU's thread call this after its next exit.
    pub fn call_on_first_thread(&self, call: OnThread) {
        let vcpus = self.vcpus.lock().expect("the vCPUs");
        let first = vcpus.first().expect("a vCPU");
        first.orders.send(Order::Call(call)).expect("a vCPU thread");
        first.ordered.store(true, Ordering::SeqCst);
    }

    /// Whether the guest has switched itself off.
    pub fn is_off(&self) -> bool {
        let record = self.record.lock().expect("the record");
        record.acted.contains(&GuestEventKind::PowerOff)
    }

    /// Ends the thread of the vCPU with the largest index.
    pub fn end_last_vcpu(&self) {
        let vcpu = self.vcpus.lock().expect("the vCPUs").pop();
        drop(vcpu);
    }
}

/// The vCPUs are paused by the VMM until this is dropped.
pub struct Paused {
    _over: Vec<mpsc::Sender<()>>,
}

impl Vcpu {
    /// Sends an order, and the signal until the thread has answered.
    fn order(&self, order: Order, answered: &mpsc::Receiver<()>) {
        self.orders.send(order).expect("a vCPU thread");
        self.ordered.store(true, Ordering::SeqCst);
        let thread = self.thread.as_ref().expect("a thread");
        for _ in 0..10_000 {
            thread.kill(signal()).expect("a signal");
            match answered.recv_timeout(REPEAT) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
        panic!("a vCPU thread does not answer the VMM");
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A thread that has ended takes no order.
        let _ = self.orders.send(Order::Exit);
        self.ordered.store(true, Ordering::SeqCst);
        while !thread.is_finished() {
            // The thread may end at any time.
            let _ = thread.kill(signal());
            thread::sleep(REPEAT);
        }
        let _ = thread.join();
    }
}

fn signal() -> i32 {
    vmm_sys_util::signal::SIGRTMIN() + SIGNAL_OFFSET
}

/// The state of one vCPU thread.
struct VcpuThread {
    id: u32,
    index: VpIndex,
    vm: VmHandle,
    machine: Arc<dyn Machine>,
    record: Arc<Mutex<Record>>,
    ordered: Arc<AtomicBool>,
    orders: mpsc::Receiver<Order>,
    hook: VpHook,
    fd: Arc<Mutex<VcpuFd>>,
    shape: Shape,
    goes: Goes,
}

/// Whether the thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    Ends,
}

impl VcpuThread {
    /// The VP parks inside the run. Only this thread uses the lock.
    fn loop_inside(&mut self) {
        while self.serve_orders() == Goes::On {
            let Self {
                hook, fd, machine, ..
            } = self;
            let fd = fd.clone();
            let mut exit = SeenExit::Other;
            let mut outcome = DeviceOutcome::Done;
            let (index, machine) = (self.index, machine.clone());
            let result = hook.run(|| {
                let mut fd = fd.lock().expect("the vCPU");
                (exit, outcome) = kvm_run(&mut fd, index, &*machine)?;
                Ok(())
            });
            self.handle(result, exit, outcome);
        }
    }

    /// The VP parks outside the lock, which is held across the run.
    fn loop_outside(&mut self) {
        let (mut exit, mut outcome) = (SeenExit::Other, DeviceOutcome::Done);
        let mut held = Ok(());
        while self.serve_orders() == Goes::On {
            match self.hook.before_entry() {
                BeforeEntry::Enter => {}
                BeforeEntry::Interrupted => continue,
                BeforeEntry::Deliver => {
                    self.handle(std::mem::replace(&mut held, Ok(())), exit, outcome);
                    continue;
                }
            }
            let fd = self.fd.clone();
            let mut locked = fd.lock().expect("the vCPU");
            let result = kvm_run(&mut locked, self.index, &*self.machine);
            let result = result.map(|seen| (exit, outcome) = seen);
            let after = self.hook.after_exit(&result);
            drop(locked);
            match after {
                AfterExit::Handle => self.handle(result, exit, outcome),
                AfterExit::Again => {}
                AfterExit::Hold => held = result,
            }
        }
    }

    fn serve_orders(&mut self) -> Goes {
        if self.goes == Goes::Ends || !self.ordered.swap(false, Ordering::SeqCst) {
            return self.goes;
        }
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Pause { paused, over } => {
                    // The VMM may have given up.
                    let _ = paused.send(());
                    let _ = over.recv();
                }
                Order::Call(call) => call(&mut || self.enter_only()),
                Order::Exit => self.goes = Goes::Ends,
            }
        }
        self.goes
    }

    /// One entry, whose exit no device serves.
    fn enter_only(&mut self) {
        let mut fd = self.fd.lock().expect("the vCPU");
        match self.shape {
            Shape::InsideRun => {
                let run = || fd.run().map(drop).map_err(io::Error::from);
                self.hook.run(run).expect("an exit");
            }
            Shape::OutsideTheLock => {
                assert_eq!(self.hook.before_entry(), BeforeEntry::Enter);
                let result = fd.run().map(drop).map_err(io::Error::from);
                assert_eq!(self.hook.after_exit(&result), AfterExit::Handle);
            }
        }
    }

    /// Handles an exit that is not the debugger's.
    fn handle(&mut self, result: io::Result<()>, exit: SeenExit, outcome: DeviceOutcome) {
        let exit = match result {
            Ok(()) => exit,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => return,
                errno => SeenExit::Failed(errno.unwrap_or_default()),
            },
        };
        let event = match outcome {
            DeviceOutcome::Reset => Some(GuestEventKind::Reset),
            DeviceOutcome::PowerOff => Some(GuestEventKind::PowerOff),
            DeviceOutcome::Panicked => Some(GuestEventKind::Panic),
            _ => None,
        };
        let mut record = self.record.lock().expect("the record");
        record.exits.push((self.id, exit));
        if let Some(kind) = event
            && self.vm.guest_event(kind, Some(self.id)) == Proceed::Now
        {
            record.act(kind, &self.vm);
        }
        let off = record.acted.contains(&GuestEventKind::PowerOff);
        drop(record);
        let ends = matches!(
            exit,
            SeenExit::Shutdown | SeenExit::Broken | SeenExit::Failed(_)
        );
        if ends {
            // The VMM ends such a guest.
            self.vm.stop();
        }
        if off || ends {
            self.stay_out();
        }
    }

    /// The VMM has ended such a guest: its vCPU stays out of the guest.
    fn stay_out(&mut self) {
        while self.serve_orders() == Goes::On {
            thread::park_timeout(REPEAT);
        }
    }
}

/// One `KVM_RUN`, with the devices behind it.
fn kvm_run(
    fd: &mut VcpuFd,
    vp: VpIndex,
    machine: &dyn Machine,
) -> io::Result<(SeenExit, DeviceOutcome)> {
    let mut outcome = DeviceOutcome::Done;
    let exit = match fd.run()? {
        VcpuExit::IoOut(port, data) => {
            outcome = machine.pio_write(vp, port, data);
            SeenExit::Port(port)
        }
        VcpuExit::IoIn(port, data) => {
            machine.pio_read(vp, port, data);
            SeenExit::Port(port)
        }
        VcpuExit::MmioRead(gpa, data) => {
            machine.mmio_read(Some(vp), Gpa::new(gpa), data);
            SeenExit::Mmio(gpa)
        }
        VcpuExit::MmioWrite(gpa, data) => {
            outcome = machine.mmio_write(Some(vp), Gpa::new(gpa), data).1;
            SeenExit::Mmio(gpa)
        }
        VcpuExit::Shutdown => SeenExit::Shutdown,
        VcpuExit::InternalError | VcpuExit::FailEntry(..) => SeenExit::Broken,
        VcpuExit::Hlt => SeenExit::Halt,
        _ => SeenExit::Other,
    };
    Ok((exit, outcome))
}
