//! The debug server of one VM: a thread with the controller and the listener.

use crate::host::VcpuThread;
use crate::messages;
use crate::ours::Ours;
use crate::presence::Presence;
use crate::presence::Quiesce;
use crate::settings::Settings;
use crate::signals::without_signals;
use crate::tracker::Slot;
use crate::tracker::Vcpu;
use crate::tracker::VmNumber;
use crate::vmm_process::memory;
use debug_worker::AddressError;
use debug_worker::Announcement;
use debug_worker::BindError;
use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Exposure;
use debug_worker::ListenAddress;
use debug_worker::RunningServer;
use debug_worker::SymbolFile;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use mesh::worker::WorkerRpc;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use pal_async::DefaultPool;
use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::GuestEventKind;
use vp_runner::embed::Controller;
use vp_runner::embed::EmbedError;
use vp_runner::embed::EmbedParams;
use vp_runner::embed::KickSignal;
use vp_runner::embed::Quiesced;
use vp_runner::embed::SignalKick;
use vp_runner::embed::StartMode;
use vp_runner::embed::VmHandle;
use vp_runner::embed::VpHook;
use vp_runner::embed::embed;
use vp_runner::probe;
use vp_runner::probe::ProbeError;

/// VMMs take their signals from the first real-time signals on.
const BELOW_LAST: i32 = 2;

/// The number of the signal that brings a vCPU out of the guest.
pub(crate) fn kick_signal() -> i32 {
    libc::SIGRTMAX() - BELOW_LAST
}

/// Why a VM has no debug server.
#[derive(Debug, Error)]
pub(crate) enum ServerError {
    /// The address of `trapgate exec` is none.
    #[error("the address for GDB is not understood")]
    Address(#[from] AddressError),
    /// The address cannot be used.
    #[error(
        "the debug server cannot listen; choose another --gdb address: 127.0.0.1:0 takes a free port, unix:PATH a socket file"
    )]
    Listen(#[from] BindError),
    /// The OpenMetrics endpoint cannot be used.
    #[error("the OpenMetrics endpoint cannot listen; choose another --metrics path")]
    Metrics(#[source] BindError),
    /// The socket for programs cannot be used.
    #[error("the socket for programs cannot listen; choose another --rpc path")]
    Rpc(#[source] BindError),
    /// KVM cannot be used.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The debugger could not be attached to the VM.
    #[error(transparent)]
    Embed(#[from] EmbedError),
    /// The host has no thread or no descriptor left.
    #[error(
        "the host gives no thread or file descriptor; raise the limits (`ulimit -u`, `ulimit -n`)"
    )]
    Host(#[from] io::Error),
    /// The signal is none.
    #[error("signal {} is no real-time signal on this host", kick_signal())]
    Signal,
    /// The thread of the server has ended.
    #[error("the thread of the debug server has ended; the lines above say why")]
    Ended,
}

impl Quiesce for VmHandle {
    type Quiesced = Quiesced;

    fn quiesce(&self) -> Quiesced {
        Self::quiesce(self)
    }
}

/// A running debug server.
pub(crate) struct VmServer {
    handle: VmHandle,
    presence: Arc<Presence<VmHandle>>,
    /// Closed when the thread has ended.
    ended: Mutex<mpsc::Receiver<Infallible>>,
}

/// What the thread needs to begin.
struct Beginning {
    vm: VmNumber,
    kvm: OwnedFd,
    fd: OwnedFd,
    address: ListenAddress,
    start: StartMode,
    settings: Settings,
}

impl VmServer {
    /// Starts the thread, and returns when the server listens.
    pub(crate) fn start(
        vm: VmNumber,
        kvm: BorrowedFd<'_>,
        fd: BorrowedFd<'_>,
        settings: &Settings,
    ) -> Result<Self, ServerError> {
        let beginning = Beginning {
            vm,
            kvm: kvm.try_clone_to_owned()?,
            fd: fd.try_clone_to_owned()?,
            address: settings.gdb.parse()?,
            start: match settings.wait {
                true => StartMode::WaitForDebugger,
                false => StartMode::Run,
            },
            settings: settings.clone(),
        };
        let (started, starts) = mpsc::sync_channel(1);
        let (alive, ended) = mpsc::channel();
        let run = move || {
            let _ours = Ours::enter();
            let _alive: mpsc::Sender<Infallible> = alive;
            match prepare(beginning) {
                Ok((handle, controller, servers)) => {
                    // The VMM's thread waits for the result.
                    let _ = started.send(Ok(handle));
                    drop(started);
                    serve(controller, servers);
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        // The signals of the VMM are for its own threads.
        without_signals(|| {
            thread::Builder::new()
                .name("trapgate".to_owned())
                .spawn(run)
        })?;
        let handle = starts.recv().unwrap_or(Err(ServerError::Ended))?;
        let presence = Arc::new(Presence::new(handle.clone()));
        Ok(Self {
            handle,
            presence,
            ended: Mutex::new(ended),
        })
    }

    /// Sets, changes or removes a memory slot. Returns when the former memory is no longer in use.
    pub(crate) fn set_slot(&self, number: u32, slot: Option<Slot>) {
        self.handle.set_slot(number, slot.and_then(memory::slot_of));
    }

    /// The VMM begins to log which pages are written.
    pub(crate) fn log_begins(&self) {
        self.handle.note_writes();
    }

    /// The pages of the slot that a debugger has written since the last call.
    pub(crate) fn written_pages(&self, slot: Slot) -> Vec<u64> {
        let end = slot.gpa.saturating_add(slot.size);
        self.handle.take_written_pages(slot.gpa..end)
    }

    /// The VMM has created a vCPU.
    pub(crate) fn expect(&self, vcpu: Vcpu) {
        self.handle.expect_vp(vcpu.id);
    }

    /// The VMM has set the CPUID of a vCPU.
    pub(crate) fn add(&self, vcpu: Vcpu, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.handle.add_vp(vcpu.id, fd)
    }

    /// Registers the vCPU of the calling thread.
    pub(crate) fn vcpu_thread(
        &self,
        vcpu: Vcpu,
        fd: BorrowedFd<'_>,
    ) -> io::Result<Box<dyn VcpuThread>> {
        let hook = self.handle.register_vp(vcpu.id, fd);
        Ok(Box::new(HookedVcpu {
            hook: Some(hook?),
            presence: self.presence.clone(),
        }))
    }

    /// Lets the guest go, and ends the server.
    pub(crate) fn stop(&self) {
        self.handle.stop();
    }

    /// Whether the server has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(ended.try_recv(), Err(mpsc::TryRecvError::Disconnected))
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is sent: the channel is closed, or the time is over.
        let _ = ended.recv_timeout(left);
    }
}

/// A vCPU with its debugger. `None` after a fault of the debugger.
struct HookedVcpu {
    hook: Option<VpHook>,
    presence: Arc<Presence<VmHandle>>,
}

impl VcpuThread for HookedVcpu {
    fn run(&mut self, kvm_run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let Some(hook) = &mut self.hook else {
            return kvm_run();
        };
        let _inside = self.presence.enter();
        // A panic must not unwind into the VMM, and the VMM goes on without the debugger.
        let ran = catch_unwind(AssertUnwindSafe(|| hook.run(&mut *kvm_run)));
        ran.unwrap_or_else(|_| {
            eprintln!("{}", messages::DEBUGGER_FAILED);
            self.hook = None;
            Err(io::Error::from_raw_os_error(libc::EINTR))
        })
    }
}

/// What serves the debuggers of a VM.
struct Servers {
    gdb: DebuggerParameters,
    /// The socket for programs.
    rpc: Option<DebugListener>,
    /// The file by which `trapgate gdb` finds the server.
    announcement: Option<Announcement>,
}

fn prepare(beginning: Beginning) -> Result<(VmHandle, Controller, Servers), ServerError> {
    let signal = KickSignal::new(kick_signal()).map_err(|_| ServerError::Signal)?;
    let report = probe::run_with(signal)?;
    let settings = beginning.settings;
    let listener = listen(beginning.vm, beginning.address, &settings)?;
    let metrics = socket(
        beginning.vm,
        settings.metrics.as_deref(),
        ServerError::Metrics,
    )?;
    let rpc = socket(beginning.vm, settings.rpc.as_deref(), ServerError::Rpc)?;
    let (requests, debug) = mesh::channel::<DebugMessage>();
    let params = EmbedParams::new(beginning.kvm.as_fd(), beginning.fd.as_fd(), debug)?
        .start(beginning.start)
        // No exit tells which port of a device resets the machine or powers it off.
        .announces([GuestEventKind::TripleFault])
        .report(report)
        .kick(SignalKick::new(signal));
    let (handle, controller) = embed(params)?;
    let address = listener.local_addr();
    let target = match &address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    };
    let announcement = announce(&address, &settings);
    let text = messages::listening(beginning.vm, &address.to_string(), &target);
    if let Some(rpc) = &rpc {
        eprintln!("rpc: listening on {}", rpc.local_addr());
    }
    eprintln!("{text}");
    let mut parameters = DebuggerParameters::new(listener, requests);
    parameters.metrics = metrics;
    parameters.settings.on_disconnect = settings.on_disconnect;
    parameters.settings.symbols = symbols(settings.symbols.as_deref());
    parameters.settings.dump_folder = settings.dump_folder;
    if let Some(limit) = settings.idle_timeout {
        parameters.settings.idle_timeout = limit;
    }
    let gdb = parameters;
    let servers = Servers {
        gdb,
        rpc,
        announcement,
    };
    Ok((handle, controller, servers))
}

/// `trapgate exec` could open the file. A VM without symbols can be debugged all the same.
fn symbols(path: Option<&Path>) -> Option<SymbolFile> {
    let path = path?;
    let opened = SymbolFile::open(path);
    opened
        .inspect_err(|error| tracing::error!(path = %path.display(), %error, "the file with the symbols cannot be read"))
        .ok()
}

/// The library does not know what the VMM boots: the symbols are those that the user has named.
fn announce(address: &ListenAddress, settings: &Settings) -> Option<Announcement> {
    let runtime_dir = settings.runtime_dir.as_deref()?;
    let vmm = std::env::args_os().next().unwrap_or_default();
    let server = RunningServer::new(
        address.clone(),
        vmm.to_string_lossy().into_owned(),
        settings.symbols.clone(),
    );
    let announced = Announcement::new(runtime_dir, &server);
    announced
        .inspect_err(|error| tracing::info!(%error, "`trapgate gdb` will not find this VM"))
        .ok()
}

/// The address of the user is that of the first VM, and of a later one if the first has gone.
fn listen(
    vm: VmNumber,
    address: ListenAddress,
    settings: &Settings,
) -> Result<DebugListener, BindError> {
    let exposure = match settings.allow_network {
        true => Exposure::Network,
        false => Exposure::LoopbackOnly,
    };
    let mut listener = bind(vm, address, exposure)?;
    for user in &settings.allow_users {
        listener.allow_user(*user);
    }
    Ok(listener)
}

/// A unix socket, if the user has asked for it.
fn socket(
    vm: VmNumber,
    address: Option<&str>,
    failed: fn(BindError) -> ServerError,
) -> Result<Option<DebugListener>, ServerError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = bind(vm, address.parse()?, Exposure::LoopbackOnly);
    listener.map(Some).map_err(failed)
}

fn bind(
    vm: VmNumber,
    address: ListenAddress,
    exposure: Exposure,
) -> Result<DebugListener, BindError> {
    match (DebugListener::bind(&address, exposure), address) {
        (Err(BindError::InUse(_)), ListenAddress::Tcp(mut address)) if vm.0 > 1 => {
            address.set_port(0);
            DebugListener::bind(&ListenAddress::Tcp(address), exposure)
        }
        (Err(BindError::InUse(_)), ListenAddress::Unix(mut path)) if vm.0 > 1 => {
            path.as_mut_os_string().push(format!(".{}", vm.0));
            DebugListener::bind(&ListenAddress::Unix(path), exposure)
        }
        (bound, _) => bound,
    }
}

/// Runs the controller and the debug server on this thread, until the VM is gone.
fn serve(controller: Controller, servers: Servers) {
    let Servers {
        gdb,
        rpc,
        announcement: _announcement,
    } = servers;
    let ends = DefaultPool::run_with(async |driver| {
        let (stop_gdb, gdb_stopped) = mesh::channel();
        let (stop_rpc, rpc_stopped) = mesh::channel();
        let target = gdb.requests.clone();
        let gdb = debug_worker::serve(driver.clone(), gdb, gdb_stopped);
        let rpc = async {
            match rpc {
                Some(rpc) => debug_worker::serve_rpc(driver, rpc, target, rpc_stopped).await,
                None => Ok(()),
            }
        };
        let log_failure = |ended: io::Result<()>| {
            if let Err(error) = ended {
                tracing::error!(%error, "the debug server has ended; the guest runs on, unless it is held: in that case end the VMM and start it again");
            }
        };
        let guest = async {
            let end = controller.run().await;
            stop_gdb.send(WorkerRpc::Stop);
            stop_rpc.send(WorkerRpc::Stop);
            Some(end)
        };
        // Each of these futures has a waker of its own. `join!` would poll all of them whenever one is woken, which happens several times for each request.
        let parts: FuturesUnordered<LocalBoxFuture<'_, Option<GuestEnd>>> = [
            guest.boxed_local(),
            gdb.map(log_failure).map(|()| None).boxed_local(),
            rpc.map(log_failure).map(|()| None).boxed_local(),
        ]
        .into_iter()
        .collect();
        let ends: Vec<_> = parts.filter_map(std::future::ready).collect().await;
        ends
    });
    if ends.contains(&GuestEnd::Killed) {
        // The debugger ends the guest, and a VMM ends its guest when it is asked to end.
        if let Err(error) = kill(Pid::this(), Signal::SIGTERM) {
            tracing::error!(%error, "the VMM cannot be ended by a signal; end it by its own command");
        }
    }
}
