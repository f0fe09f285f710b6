//! A small VMM that knows nothing of debuggers, for `trapgate exec -- small_vmm [CPUS]`.
//!
//! Each vCPU has a thread, which runs the loop of [`PROGRAM`] in protected mode with segments of 16 bits. (In real mode a debugger's breakpoints are no bytes in
//! memory.) The VMM obeys commands on its standard input, and answers each by one line:
//! `count`, `code`, `pause`, `resume`, `remap`, `shrink`, `child`, `second` and `quit`. It exits with [`EXIT_CODE`].

use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuExit;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::process::Command;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;
use vm_memory::Bytes as _;
use vm_memory::FileOffset;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryBackend as _;
use vm_memory::GuestMemoryMmap;
use vm_memory::GuestMemoryRegion as _;
use vmm_sys_util::signal::Killable as _;
use vmm_sys_util::signal::register_signal_handler;
use vmm_sys_util::tempfile::TempFile;
use vp_runner::kvm::ram::RegisteredRam;

/// `lock inc dword [0x2000]`, `inc bx`, `out 0x10, al`, and a jump back. Behind it is a `hlt`, which no vCPU reaches.
const PROGRAM: [u8; 12] = [
    0xf0, 0x66, 0xff, 0x06, 0x00, 0x20, 0x43, 0xe6, 0x10, 0xeb, 0xf5, 0xf4,
];
const START: u64 = 0x1000;
const CR0_PE: u64 = 1;
const RAM_SIZE: usize = 1 << 20;
/// More memory, behind which is a file of this size.
const FILE_START: GuestAddress = GuestAddress(RAM_SIZE as u64);
const FILE_SIZE: usize = 0x2000;
const EXIT_CODE: u8 = 7;

/// The time after which a signal that came between two runs is sent again.
const KICK_AGAIN: Duration = Duration::from_millis(5);

/// What the threads of the vCPUs have to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    End,
}

struct State {
    wish: Wish,
    /// The threads that run no vCPU.
    out: usize,
    /// The guest's writes to its port.
    writes: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct Vmm {
    vm: Arc<VmFd>,
    ram: Option<RegisteredRam>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    second: Option<Box<Vmm>>,
}

extern "C" fn interrupted(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn main() -> ExitCode {
    let cpus = std::env::args()
        .nth(1)
        .map_or(1, |text| text.parse().expect("a number of CPUs"));
    register_signal_handler(libc::SIGUSR1, interrupted).expect("a handler");
    let mut vmm = Vmm::start(cpus);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        match line.as_str() {
            "quit" => break,
            command => println!("{command}: {}", vmm.obey(command)),
        }
    }
    vmm.end();
    ExitCode::from(EXIT_CODE)
}

impl Vmm {
    fn start(cpus: u64) -> Self {
        let kvm = Kvm::new().expect("/dev/kvm");
        let vm = Arc::new(kvm.create_vm().expect("a VM"));
        let ram = Some(new_ram(&vm));
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                wish: Wish::Run,
                out: 0,
                writes: 0,
            }),
            changed: Condvar::new(),
        });
        let threads = (0..cpus).map(|id| {
            let vcpu = new_vcpu(&vm, id);
            let shared = shared.clone();
            thread::spawn(move || run(vcpu, &shared))
        });
        let threads = threads.collect();
        Self {
            vm,
            ram,
            shared,
            threads,
            second: None,
        }
    }

    fn obey(&mut self, command: &str) -> String {
        match command {
            "count" => self.count().to_string(),
            // The code as a snapshot without a pause would have it.
            "code" => self.code(),
            "pause" => {
                let took = self.wish(Wish::Pause);
                format!("{} ms, code {}", took.as_millis(), self.code())
            }
            "resume" => {
                self.wish(Wish::Run);
                "done".to_owned()
            }
            // As a VMM does that maps its memory anew at a reset.
            "remap" => {
                drop(self.ram.take());
                self.ram = Some(new_ram(&self.vm));
                "done".to_owned()
            }
            // As a VMM does whose balloon takes the end of the guest's memory away.
            "shrink" => {
                let ram = self.ram.as_ref().expect("it is there");
                let region = ram.memory().find_region(FILE_START);
                let file = region.and_then(|region| region.file_offset());
                let file = file.expect("it has a file").file();
                file.set_len(FILE_SIZE as u64 / 2).expect("a shorter file");
                "done".to_owned()
            }
            "child" => {
                let output = Command::new("env").output().expect("every system has it");
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let ours =
                    |line: &&str| line.contains("LD_PRELOAD") || line.contains("TRAPGATE_EXEC");
                let left = text.lines().filter(ours).collect::<Vec<_>>();
                format!("{} variables {}", left.len(), left.join(" "))
            }
            // A VM beside the first one, with the same program.
            "second" => {
                let second = Self::start(1);
                while second.count() == 0 {}
                self.second = Some(Box::new(second));
                "done".to_owned()
            }
            _ => "not known".to_owned(),
        }
    }

    fn count(&self) -> u64 {
        self.shared.state.lock().expect("no panic").writes
    }

    /// Waits until the threads have heard the wish.
    fn wish(&self, wish: Wish) -> Duration {
        let since = Instant::now();
        let mut state = self.shared.state.lock().expect("no panic");
        state.wish = wish;
        self.shared.changed.notify_all();
        let all = self.threads.len();
        while wish == Wish::Pause && state.out < all || wish == Wish::Run && state.out > 0 {
            if wish == Wish::Pause {
                for thread in &self.threads {
                    thread.kill(libc::SIGUSR1).expect("it runs");
                }
            }
            let waited = self.shared.changed.wait_timeout(state, KICK_AGAIN);
            state = waited.expect("no panic").0;
        }
        since.elapsed()
    }

    /// The program as a snapshot would have it.
    fn code(&self) -> String {
        let ram = self.ram.as_ref().expect("it is there");
        let mut code = [0_u8; PROGRAM.len()];
        let read = ram.memory().read_slice(&mut code, GuestAddress(START));
        read.expect("it is RAM");
        code.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn end(self) {
        self.wish(Wish::Pause);
        self.wish(Wish::End);
        if let Some(second) = self.second {
            second.end();
        }
        for thread in self.threads {
            thread.join().expect("no panic");
        }
    }
}

fn new_ram(vm: &Arc<VmFd>) -> RegisteredRam {
    let file = TempFile::new().expect("a file").into_file();
    file.set_len(FILE_SIZE as u64).expect("a file of this size");
    let file = FileOffset::new(file, 0);
    let memory = GuestMemoryMmap::from_ranges_with_files([
        (GuestAddress(0), RAM_SIZE, None),
        (FILE_START, FILE_SIZE, Some(file)),
    ]);
    let memory = memory.expect("memory");
    let loaded = memory.write_slice(&PROGRAM, GuestAddress(START));
    loaded.expect("it fits");
    RegisteredRam::new(vm.clone(), Arc::new(memory)).expect("KVM takes it")
}

fn new_vcpu(vm: &VmFd, id: u64) -> VcpuFd {
    let vcpu = vm.create_vcpu(id).expect("a vCPU");
    let mut sregs = vcpu.get_sregs().expect("readable");
    sregs.cs.base = 0;
    sregs.cs.selector = 8;
    sregs.cr0 |= CR0_PE;
    vcpu.set_sregs(&sregs).expect("writable");
    let mut regs = vcpu.get_regs().expect("readable");
    (regs.rip, regs.rflags) = (START, 2);
    vcpu.set_regs(&regs).expect("writable");
    vcpu
}

fn run(mut vcpu: VcpuFd, shared: &Shared) {
    loop {
        let mut state = shared.state.lock().expect("no panic");
        if state.wish == Wish::Pause {
            state.out += 1;
            shared.changed.notify_all();
            while state.wish == Wish::Pause {
                state = shared.changed.wait(state).expect("no panic");
            }
            state.out -= 1;
            shared.changed.notify_all();
        }
        if state.wish == Wish::End {
            return;
        }
        drop(state);
        match vcpu.run() {
            Ok(VcpuExit::IoOut(0x10, _)) => {
                shared.state.lock().expect("no panic").writes += 1;
            }
            Ok(exit) => panic!("the guest's program does not make the exit {exit:?}"),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => panic!("KVM_RUN: {error}"),
        }
    }
}
