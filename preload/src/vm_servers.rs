//! The debug servers of this process: one for each VM.

use crate::host::Host;
use crate::host::VcpuThread;
use crate::messages;
use crate::settings::Settings;
use crate::signals::without_signals;
use crate::tracker::Slot;
use crate::tracker::Vcpu;
use crate::tracker::VmNumber;
use crate::vm_server;
use crate::vm_server::VmServer;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The time for which a process that ends waits until the debuggers have heard of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// The debug servers.
pub(crate) struct VmServers {
    settings: OnceLock<Settings>,
    servers: Mutex<BTreeMap<VmNumber, Arc<VmServer>>>,
    /// The servers of VMs that are gone, whose clients may not have heard of it.
    ending: Mutex<Vec<Arc<VmServer>>>,
    /// Whether the log goes to standard error.
    logs: OnceLock<()>,
    /// Whether the VMM forbids system calls, and whether the user was told.
    filtered: AtomicBool,
    filter_was_told: AtomicBool,
}

impl VmServers {
    pub(crate) const fn new() -> Self {
        Self {
            settings: OnceLock::new(),
            servers: Mutex::new(BTreeMap::new()),
            ending: Mutex::new(Vec::new()),
            logs: OnceLock::new(),
            filtered: AtomicBool::new(false),
            filter_was_told: AtomicBool::new(false),
        }
    }

    /// The settings, before the first VM.
    pub(crate) fn begin(&self, settings: Settings) {
        // Once per process: the constructor is the only caller.
        let _ = self.settings.set(settings);
    }

    /// Whether the user has asked for a log.
    pub(crate) fn logs(&self) -> bool {
        let settings = self.settings.get();
        settings.is_some_and(|settings| settings.log.is_some())
    }

    /// The process ends: debuggers hear of it, and socket files go.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + FAREWELL;
        let servers = self.with(std::mem::take);
        for server in servers.values() {
            server.stop();
        }
        let of_former_vms = self.with_ending(std::mem::take);
        for server in servers.values().chain(&of_former_vms) {
            server.wait(deadline);
        }
    }

    fn with<R>(&self, use_servers: impl FnOnce(&mut BTreeMap<VmNumber, Arc<VmServer>>) -> R) -> R {
        without_signals(|| {
            use_servers(&mut self.servers.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn with_ending<R>(&self, use_servers: impl FnOnce(&mut Vec<Arc<VmServer>>) -> R) -> R {
        // A signal handler of the VMM may call `exit`, which takes this lock.
        without_signals(|| {
            use_servers(&mut self.ending.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn server(&self, vm: VmNumber) -> Option<Arc<VmServer>> {
        self.with(|servers| servers.get(&vm).cloned())
    }

    fn tell_of_filter(&self) {
        let has_servers = self.with(|servers| !servers.is_empty());
        if has_servers
            && self.filtered.load(Ordering::Relaxed)
            && !self.filter_was_told.swap(true, Ordering::Relaxed)
        {
            eprintln!("{}", messages::VMM_FILTERS_SYSTEM_CALLS);
        }
    }
}

impl Host for VmServers {
    fn vm_starts(&self, vm: VmNumber, kvm: BorrowedFd<'_>, fd: BorrowedFd<'_>) {
        let Some(settings) = self.settings.get() else {
            return;
        };
        self.logs.get_or_init(|| log(settings));
        match VmServer::start(vm, kvm, fd, settings) {
            Ok(server) => {
                self.with(|servers| servers.insert(vm, Arc::new(server)));
                self.tell_of_filter();
            }
            Err(error) => eprintln!("{}", messages::no_server(vm, &error)),
        }
    }

    fn slot(&self, vm: VmNumber, number: u32, slot: Option<Slot>) {
        if let Some(server) = self.server(vm) {
            server.set_slot(number, slot);
        }
    }

    fn log_begins(&self, vm: VmNumber) {
        if let Some(server) = self.server(vm) {
            server.log_begins();
        }
    }

    fn written_pages(&self, vm: VmNumber, slot: Slot) -> Vec<u64> {
        match self.server(vm) {
            Some(server) => server.written_pages(slot),
            None => Vec::new(),
        }
    }

    fn vcpu_created(&self, vcpu: Vcpu) {
        if let Some(server) = self.server(vcpu.vm) {
            server.expect(vcpu);
        }
    }

    fn vcpu_described(&self, vcpu: Vcpu, fd: BorrowedFd<'_>) {
        if let Some(server) = self.server(vcpu.vm)
            && let Err(error) = server.add(vcpu, fd)
        {
            let text = messages::vcpu_without_debugger(vcpu.id, &error);
            eprintln!("{text}");
        }
    }

    fn vcpu_thread(&self, vcpu: Vcpu, fd: BorrowedFd<'_>) -> Option<Box<dyn VcpuThread>> {
        let server = self.server(vcpu.vm)?;
        match server.vcpu_thread(vcpu, fd) {
            Ok(thread) => Some(thread),
            Err(error) => {
                let text = messages::vcpu_without_debugger(vcpu.id, &error);
                eprintln!("{text}");
                None
            }
        }
    }

    fn vm_is_gone(&self, vm: VmNumber) {
        if let Some(server) = self.with(|servers| servers.remove(&vm)) {
            server.stop();
            // Most VMMs close the VM and end at once, and a client has to hear of the end.
            self.with_ending(|ending| {
                ending.retain(|server| !server.has_ended());
                ending.push(server);
            });
        }
    }

    fn vmm_debugs_itself(&self, _: VmNumber) {
        eprintln!("{}", messages::VMM_DEBUGS_ITSELF);
    }

    fn system_calls_are_filtered(&self) {
        self.filtered.store(true, Ordering::Relaxed);
        self.tell_of_filter();
    }

    fn kick_signal(&self) -> i32 {
        vm_server::kick_signal()
    }
}

/// The VMM's own variable `RUST_LOG` is for the VMM.
fn log(settings: &Settings) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::ERROR.into())
        .parse_lossy(settings.log.as_deref().unwrap_or_default());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false);
    match settings.log_json {
        true => log.json().init(),
        false => log.init(),
    }
}
