use super::*;
use crate::host::VcpuThread;
use crate::tracker::Vcpu;
use std::fs::File;
use std::sync::Arc;

/// The calls of the host, in their order.
type Calls = Arc<Mutex<Vec<Call>>>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Starts(u32),
    Slot(u32, u32, Option<u64>),
    Created(u32, u32),
    Described(u32, u32),
    Thread(u32, u32),
    Run(u32),
    ThreadDropped(u32),
    LogBegins(u32),
    Gone(u32),
    DebugsItself(u32),
    Filtered,
    Ioctl(&'static str),
}

struct Recorder {
    calls: Calls,
    /// Whether a vCPU gets a debugger.
    hooks: bool,
}

impl Recorder {
    fn note(&self, call: Call) {
        note(&self.calls, call);
    }
}

fn note(calls: &Calls, call: Call) {
    calls
        .lock()
        .expect("no test panics while it notes")
        .push(call);
}

impl Host for Recorder {
    fn vm_starts(&self, vm: VmNumber, _: BorrowedFd<'_>, _: BorrowedFd<'_>) {
        assert!(is_ours());
        self.note(Call::Starts(vm.0));
    }

    fn slot(&self, vm: VmNumber, number: u32, slot: Option<Slot>) {
        assert!(is_ours());
        self.note(Call::Slot(vm.0, number, slot.map(|slot| slot.gpa)));
    }

    fn log_begins(&self, vm: VmNumber) {
        assert!(is_ours());
        self.note(Call::LogBegins(vm.0));
    }

    /// The second page of the slot.
    fn written_pages(&self, _: VmNumber, slot: Slot) -> Vec<u64> {
        assert!(is_ours());
        vec![slot.gpa + 0x1000]
    }

    fn vcpu_created(&self, vcpu: Vcpu) {
        assert!(is_ours());
        self.note(Call::Created(vcpu.vm.0, vcpu.id));
    }

    fn vcpu_described(&self, vcpu: Vcpu, _: BorrowedFd<'_>) {
        assert!(is_ours());
        self.note(Call::Described(vcpu.vm.0, vcpu.id));
    }

    fn vcpu_thread(&self, vcpu: Vcpu, _: BorrowedFd<'_>) -> Option<Box<dyn VcpuThread>> {
        assert!(is_ours());
        self.note(Call::Thread(vcpu.vm.0, vcpu.id));
        let calls = self.calls.clone();
        self.hooks.then(|| Box::new(Hook { vcpu, calls }) as _)
    }

    fn vm_is_gone(&self, vm: VmNumber) {
        assert!(is_ours());
        self.note(Call::Gone(vm.0));
    }

    fn vmm_debugs_itself(&self, vm: VmNumber) {
        self.note(Call::DebugsItself(vm.0));
    }

    fn system_calls_are_filtered(&self) {
        self.note(Call::Filtered);
    }

    fn kick_signal(&self) -> i32 {
        62
    }
}

struct Hook {
    vcpu: Vcpu,
    calls: Calls,
}

impl VcpuThread for Hook {
    fn run(&mut self, kvm_run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        assert!(is_ours());
        note(&self.calls, Call::Run(self.vcpu.id));
        kvm_run()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        assert!(is_ours());
        note(&self.calls, Call::ThreadDropped(self.vcpu.id));
    }
}

/// The functions that a VMM calls, on descriptors that are open but not KVM's.
struct Vmm {
    interposer: Interposer<Recorder>,
    calls: Calls,
}

impl Vmm {
    fn new() -> &'static Self {
        Self::with(true)
    }

    /// Not dropped: the set of descriptors is made for a static.
    fn with(hooks: bool) -> &'static Self {
        let calls = Calls::default();
        let host = Recorder {
            calls: calls.clone(),
            hooks,
        };
        let interposer = Interposer::new(host);
        interposer.arm();
        Box::leak(Box::new(Self { interposer, calls }))
    }

    fn vm(&self) -> File {
        let fd = descriptor();
        self.interposer
            .vm_created(descriptor().as_fd(), fd.as_raw_fd());
        fd
    }

    fn vcpu(&self, vm: &File, id: u32) -> File {
        let fd = descriptor();
        self.interposer.vcpu_created(vm.as_fd(), id, fd.as_raw_fd());
        fd
    }

    fn slot(&self, vm: &File, number: u32, gpa: Option<u64>, result: io::Result<()>) {
        let slot = gpa.map(|gpa| Slot {
            gpa,
            size: 0x1000,
            host: 0x7000_0000,
            writable: true,
        });
        let real = || {
            note(&self.calls, Call::Ioctl("slot"));
            result
        };
        let _ = self.interposer.set_slot(vm.as_raw_fd(), number, slot, real);
    }

    fn run(&self, vcpu: &File) {
        let real = || {
            note(&self.calls, Call::Ioctl("run"));
            Ok(())
        };
        self.interposer.run(vcpu.as_fd(), real).expect("it runs");
    }

    fn debug(&self, vcpu: &File, control: u32) {
        let real = || {
            note(&self.calls, Call::Ioctl("debug"));
            Ok(())
        };
        self.interposer
            .set_guest_debug(vcpu.as_raw_fd(), control, real)
            .expect("it is set");
    }

    fn close(&self, fd: File) {
        self.interposer.closing(fd.as_raw_fd());
        drop(fd);
    }

    /// The calls since the last time.
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().expect("no test panics while it notes"))
    }
}

fn descriptor() -> File {
    File::open("/dev/null").expect("Linux")
}

#[test]
fn a_debug_server_starts_with_the_first_vcpu_and_gets_the_slots_that_are_there() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    vmm.slot(&vm, 0, Some(0), Ok(()));
    vmm.slot(&vm, 1, Some(0x1000), Err(io::ErrorKind::Other.into()));
    assert_eq!(vmm.calls(), [Call::Ioctl("slot"), Call::Ioctl("slot")]);
    let _first = vmm.vcpu(&vm, 0);
    assert_eq!(
        vmm.calls(),
        [
            Call::Starts(1),
            Call::Slot(1, 0, Some(0)),
            Call::Created(1, 0)
        ]
    );
    let _second = vmm.vcpu(&vm, 1);
    assert_eq!(vmm.calls(), [Call::Created(1, 1)]);
}

#[test]
fn the_former_memory_is_given_up_before_kvm_forgets_it() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let _vcpu = vmm.vcpu(&vm, 0);
    vmm.calls();
    vmm.slot(&vm, 0, Some(0), Ok(()));
    assert_eq!(
        vmm.calls(),
        [Call::Ioctl("slot"), Call::Slot(1, 0, Some(0))]
    );
    vmm.slot(&vm, 0, Some(0x5000), Ok(()));
    let given_up = Call::Slot(1, 0, None);
    assert_eq!(
        vmm.calls(),
        [
            given_up.clone(),
            Call::Ioctl("slot"),
            Call::Slot(1, 0, Some(0x5000))
        ]
    );
    // KVM refuses: the memory is still there.
    vmm.slot(&vm, 0, None, Err(io::ErrorKind::Other.into()));
    assert_eq!(
        vmm.calls(),
        [
            given_up.clone(),
            Call::Ioctl("slot"),
            Call::Slot(1, 0, Some(0x5000))
        ]
    );
    vmm.slot(&vm, 0, None, Ok(()));
    assert_eq!(
        vmm.calls(),
        [given_up.clone(), Call::Ioctl("slot"), given_up]
    );
}

/// KVM's log of dirty pages has only the guest's writes.
#[test]
fn the_log_of_a_slot_gets_the_pages_that_a_debugger_has_written() {
    let vmm = Vmm::new();
    let early = vmm.vm();
    vmm.interposer.log_begins(early.as_raw_fd());
    assert_eq!(vmm.calls(), []);
    let _vcpu = vmm.vcpu(&early, 0);
    let told = [Call::Starts(1), Call::LogBegins(1), Call::Created(1, 0)];
    assert_eq!(vmm.calls(), told);
    let late = vmm.vm();
    let _vcpu = vmm.vcpu(&late, 0);
    vmm.slot(&late, 3, Some(0x8000), Ok(()));
    vmm.calls();
    vmm.interposer.log_begins(late.as_raw_fd());
    vmm.interposer.log_begins(late.as_raw_fd());
    assert_eq!(vmm.calls(), [Call::LogBegins(2)]);
    let pages = |vm: &File, slot| vmm.interposer.pages_for_log(vm.as_raw_fd(), slot);
    assert_eq!(pages(&late, 3), [0x1000]);
    assert!(pages(&late, 4).is_empty());
    assert!(pages(&descriptor(), 3).is_empty());
}

#[test]
fn a_vcpu_gets_its_part_of_the_thread_once_and_loses_it_with_the_thread() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 5);
    vmm.calls();
    // Joined by its handle: a scope may end before the thread has dropped what it keeps.
    let thread = std::thread::spawn(move || {
        vmm.run(&vcpu);
        vmm.run(&vcpu);
    });
    thread.join().expect("no panic");
    let once = [Call::Run(5), Call::Ioctl("run")];
    let mut wanted = vec![Call::Thread(1, 5)];
    wanted.extend(once.clone());
    wanted.extend(once);
    wanted.push(Call::ThreadDropped(5));
    assert_eq!(vmm.calls(), wanted);
}

#[test]
fn a_vcpu_without_a_debugger_is_asked_for_once_and_runs() {
    let vmm = Vmm::with(false);
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.calls();
    vmm.run(&vcpu);
    vmm.run(&vcpu);
    assert_eq!(
        vmm.calls(),
        [Call::Thread(1, 0), Call::Ioctl("run"), Call::Ioctl("run")]
    );
}

#[test]
fn a_duplicate_runs_the_same_vcpu() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.run(&vcpu);
    let other = descriptor();
    vmm.interposer
        .duplicated(vcpu.as_raw_fd(), other.as_raw_fd());
    vmm.close(vcpu);
    vmm.calls();
    vmm.run(&other);
    assert_eq!(vmm.calls(), [Call::Run(0), Call::Ioctl("run")]);
}

#[test]
fn a_number_that_stands_for_a_new_vcpu_runs_that_one() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.run(&vcpu);
    vmm.interposer.closing(vcpu.as_raw_fd());
    vmm.interposer.vcpu_created(vm.as_fd(), 1, vcpu.as_raw_fd());
    vmm.calls();
    vmm.run(&vcpu);
    assert_eq!(
        vmm.calls(),
        [
            Call::ThreadDropped(0),
            Call::Thread(1, 1),
            Call::Run(1),
            Call::Ioctl("run")
        ]
    );
}

#[test]
fn the_last_descriptor_of_a_vm_ends_its_server_before_it_is_closed() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    let (number, range) = (vm.as_raw_fd(), vcpu.as_raw_fd()..=vcpu.as_raw_fd());
    vmm.calls();
    vmm.close(vm);
    assert_eq!(vmm.calls(), []);
    assert!(!vmm.interposer.knows(number));
    vmm.interposer.closing_range(range);
    assert_eq!(vmm.calls(), [Call::Gone(1)]);
}

#[test]
fn a_vm_without_vcpus_has_no_server_to_end() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    vmm.close(vm);
    assert_eq!(vmm.calls(), []);
}

#[test]
fn several_vms_have_their_own_servers() {
    let vmm = Vmm::new();
    let (one, two) = (vmm.vm(), vmm.vm());
    let _first = vmm.vcpu(&two, 0);
    let _second = vmm.vcpu(&one, 0);
    assert_eq!(
        vmm.calls(),
        [
            Call::Starts(2),
            Call::Created(2, 0),
            Call::Starts(1),
            Call::Created(1, 0)
        ]
    );
}

#[test]
fn what_the_library_itself_does_is_not_the_vmms() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.calls();
    let ours = Ours::enter();
    let own = vmm.vm();
    assert!(!vmm.interposer.knows(own.as_raw_fd()));
    vmm.run(&vcpu);
    vmm.debug(&vcpu, GUESTDBG_ENABLE);
    vmm.interposer.closing(vm.as_raw_fd());
    vmm.interposer.closing_range(0..=Fd::MAX);
    vmm.interposer.duplicated(vm.as_raw_fd(), own.as_raw_fd());
    drop(ours);
    assert_eq!(vmm.calls(), [Call::Ioctl("run"), Call::Ioctl("debug")]);
    assert!(vmm.interposer.knows(vm.as_raw_fd()));
    assert!(!vmm.interposer.knows(own.as_raw_fd()));
}

#[test]
fn a_child_does_nothing() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.calls();
    // As if another process had created the VM.
    vmm.interposer.process.store(1, Ordering::Relaxed);
    let own = vmm.vm();
    vmm.interposer.closing(vm.as_raw_fd());
    vmm.interposer.closing_range(0..=Fd::MAX);
    vmm.debug(&vcpu, GUESTDBG_ENABLE);
    vmm.run(&vcpu);
    assert_eq!(vmm.calls(), [Call::Ioctl("debug"), Call::Ioctl("run")]);
    vmm.interposer
        .process
        .store(std::process::id(), Ordering::Relaxed);
    assert!(vmm.interposer.knows(vm.as_raw_fd()));
    assert!(!vmm.interposer.knows(own.as_raw_fd()));
}

#[test]
fn a_library_that_trapgate_exec_has_not_loaded_does_nothing() {
    let vmm = Vmm::new();
    vmm.interposer.armed.store(0, Ordering::Relaxed);
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.run(&vcpu);
    vmm.interposer.system_calls_are_filtered();
    assert_eq!(vmm.calls(), [Call::Ioctl("run")]);
    vmm.interposer.arm();
    vmm.interposer.system_calls_are_filtered();
    assert_eq!(vmm.calls(), [Call::Filtered]);
}

/// QEMU's `-daemonize`: the child creates the VM, and the parent ends.
#[test]
fn a_parent_whose_copy_has_created_a_vm_has_not_done_nothing() {
    let vmm = Vmm::new();
    let created = Box::leak(Box::new(AtomicBool::new(false)));
    vmm.interposer.share(created);
    assert!(vmm.interposer.has_done_nothing());
    let _vm = vmm.vm();
    assert!(created.load(Ordering::Relaxed));
    // The parent has its own copy of everything else.
    vmm.interposer.process.store(0, Ordering::Relaxed);
    assert!(!vmm.interposer.has_done_nothing());
}

#[test]
fn a_vmm_that_ends_its_own_debugging_does_not_end_ours() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    vmm.calls();
    vmm.debug(&vcpu, 0);
    assert_eq!(vmm.calls(), []);
    // It debugs the guest by itself: that is said once, and its calls get through.
    vmm.debug(&vcpu, GUESTDBG_ENABLE);
    vmm.debug(&vcpu, GUESTDBG_ENABLE);
    vmm.debug(&vcpu, 0);
    let calls = [
        Call::DebugsItself(1),
        Call::Ioctl("debug"),
        Call::Ioctl("debug"),
        Call::Ioctl("debug"),
    ];
    assert_eq!(vmm.calls(), calls);
}

#[test]
fn our_signal_comes_through_while_a_vcpu_runs() {
    let vmm = Vmm::new();
    let vm = vmm.vm();
    let vcpu = vmm.vcpu(&vm, 0);
    let all = SignalSet(u64::MAX);
    let mask = vmm.interposer.signal_mask(vcpu.as_raw_fd(), all);
    assert_eq!(mask, SignalSet(!(1 << 61)));
    let other = descriptor();
    assert_eq!(vmm.interposer.signal_mask(other.as_raw_fd(), all), all);
}
