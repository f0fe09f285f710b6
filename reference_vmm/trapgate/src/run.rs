//! `trapgate run`: runs a guest with its debug server and its terminal.

use crate::cli::GdbServer;
use crate::cli::OnCrash;
use crate::cli::RunArgs;
use crate::cli::SerialPlace;
use crate::demo;
use crate::exit_status::ExitStatus;
use crate::kernel::BootFiles;
use crate::kernel::Kernel;
use crate::kernel::KernelError;
use crate::kvm_host::KvmHost;
use crate::kvm_host::KvmHostError;
use crate::say;
use crate::serial_output::SerialDrain;
use crate::serial_output::SerialOutput;
use crate::session_text;
use crate::signals;
use crate::signals::Signals;
use crate::terminal;
use crate::terminal::RawTerminal;
use crate::vm::Vm;
use crate::vm::VmConfig;
use crate::vm::VmError;
use crate::vm::check_cpus;
use debug_worker::BindError;
use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Evictor;
use debug_worker::Exposure;
use debug_worker::SessionSettings;
use futures::StreamExt as _;
use mesh::worker::WorkerRpc;
use pal_async::DefaultDriver;
use pal_async::DefaultPool;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::probe;
use vp_runner::probe::ProbeError;
use vp_runner::runner;
use vp_runner::runner::Controller;
use vp_runner::runner::ResetPolicy;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::RunnerHandle;
use vp_runner::runner::RunnerParams;
use vp_runner::runner::StartError;
use vp_runner::runner::StartMode;

/// The reason why a guest could not be run.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    /// KVM cannot be used.
    #[error(transparent)]
    Host(#[from] KvmHostError),
    /// The kernel or the initial RAM disk cannot be loaded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The virtual machine cannot be created.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A crashed guest would be kept for a debugger, and no debugger can attach.
    #[error(
        "--on-crash stop keeps the guest for a debugger, and with --gdb off no debugger can attach; give --gdb an address, or omit --on-crash"
    )]
    KeptForNobody,
    /// The debug server cannot listen on its address.
    #[error(
        "cannot start the debug server (--gdb 127.0.0.1:0 takes a free port, --gdb unix:PATH a socket file, --gdb-allow-network any address)"
    )]
    Gdb(#[from] BindError),
    /// The file for the serial port's output cannot be written.
    #[error(
        "cannot write the serial port's output to {path}: {why}; check the path given to --serial"
    )]
    SerialFile {
        /// The path of the file.
        path: PathBuf,
        /// The host's error.
        why: io::Error,
    },
    /// The probe of the host's KVM failed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The runner could not start the VPs.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A system call of the program itself failed.
    #[error("cannot {what}: {why}")]
    System {
        /// The operation, as a verb phrase.
        what: &'static str,
        /// The host's error.
        why: io::Error,
    },
}

impl RunError {
    /// The exit status of the program for this error.
    pub(crate) fn status(&self) -> ExitStatus {
        match self {
            Self::Host(_)
            | Self::Kernel(_)
            | Self::Vm(_)
            | Self::KeptForNobody
            | Self::Gdb(_)
            | Self::SerialFile { .. } => ExitStatus::BadInput,
            Self::Probe(_) | Self::Start(_) | Self::System { .. } => ExitStatus::Failed,
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |why| RunError::System { what, why }
}

/// Runs a guest until it ends.
pub(crate) fn run(args: &RunArgs) -> Result<ExitStatus, RunError> {
    if args.on_crash == OnCrash::Stop && args.gdb == GdbServer::Off {
        return Err(RunError::KeptForNobody);
    }
    let signals = Signals::note().map_err(system("watch for signals"))?;
    let host = KvmHost::open()?;
    let files = match &args.kernel {
        Some(kernel) => BootFiles::read(kernel, args.initrd.as_deref())?,
        None => BootFiles {
            kernel: Kernel::demo(),
            initrd: None,
        },
    };
    let symbols = symbol_file(args, &files.kernel)?;
    let demo_most = args.kernel.is_none().then_some(demo_guest::MAX_CPUS);
    let cpus = check_cpus(&host, args.cpus, demo_most)?;
    let listener = listen(args)?;
    // Without a debug server the capabilities are not needed.
    let report = match &listener {
        Some(_) => Some(probe::run()?),
        None => None,
    };
    let (serial, drain) = open_serial(&args.serial)?;
    let vm = Vm::new(
        &host,
        VmConfig {
            files,
            command_line: args.cmdline.clone(),
            cpus,
            memory: args.memory,
            serial,
        },
    )?;

    let start = match &listener {
        Some(_) if !args.no_wait => StartMode::WaitForDebugger,
        _ => StartMode::Run,
    };
    say(&session_text::guest(args, start));
    let listener = listener.map(|listener| {
        let how_to_connect = session_text::connect(&listener.local_addr(), symbols.as_deref());
        Server {
            listener,
            how_to_connect,
        }
    });
    if let Some(server) = &listener {
        let address = server.listener.local_addr();
        say(&session_text::server(&address, &server.how_to_connect));
    }
    run_vm(vm, listener, start, report, args, drain, signals)
}

/// The debug server before it runs.
struct Server {
    listener: DebugListener,
    /// The gdb line to paste.
    how_to_connect: String,
}

/// Starts the VPs and waits until the guest has ended.
fn run_vm(
    vm: Vm,
    server: Option<Server>,
    start: StartMode,
    report: Option<probe::Report>,
    args: &RunArgs,
    drain: SerialDrain,
    signals: Signals,
) -> Result<ExitStatus, RunError> {
    let (requests, debug) = mesh::channel();
    let (kept, keeps) = mesh::channel();
    let on_reset = match args.no_reboot {
        true => ResetPolicy::Exit,
        false => ResetPolicy::Reset,
    };
    let on_crash = match args.on_crash {
        OnCrash::End => {
            drop(kept);
            runner::OnCrash::End
        }
        OnCrash::Stop => runner::OnCrash::Stop { kept },
    };
    let memory = vm.ram.memory().clone();
    let params = RunnerParams::new(vm.fd.clone(), vm.vcpus, memory, vm.pc.clone(), debug)
        .start(start)
        .on_reset(on_reset)
        .on_crash(on_crash)
        .freeze_time(args.freeze_time.into())
        .report(report);
    let (handle, controller) = vp_runner::start(params)?;
    let terminal = match args.serial {
        SerialPlace::Stdio => connect_terminal(&vm.serial, &handle)?,
        SerialPlace::File(_) | SerialPlace::Off => None,
    };
    let evictor = server.as_ref().map(|server| server.listener.evictor());
    heed_signals(signals, handle, evictor, terminal.clone())?;

    let exit = DefaultPool::run_with(async |driver| match server {
        Some(server) => {
            let mut settings = SessionSettings::default();
            settings.on_disconnect = args.on_disconnect.into();
            settings.idle_timeout = Duration::from_secs(args.idle_timeout.into());
            settings.dump_folder.clone_from(&args.dump_dir);
            with_debug_server(driver, server, settings, requests, controller, keeps).await
        }
        None => {
            drop(requests);
            controller.run().await
        }
    });
    // The guest's last output is printed first, and then the ending, on a terminal in its original mode.
    drain.wait();
    if let Some(terminal) = &terminal {
        terminal.restore();
    }
    if let Some(text) = session_text::ending(&exit) {
        let _ = writeln!(io::stderr(), "{text}");
    }
    Ok(ExitStatus::of(&exit, signals::arrived()))
}

/// Runs the controller and the debug server on this thread, so that a request and its answer wake no other thread.
async fn with_debug_server(
    driver: DefaultDriver,
    server: Server,
    settings: SessionSettings,
    requests: mesh::Sender<DebugMessage>,
    controller: Controller,
    mut keeps: mesh::Receiver<DebugStopReason>,
) -> RunnerExit {
    let Server {
        listener,
        how_to_connect,
    } = server;
    let (stop, stopped) = mesh::channel();
    let mut parameters = DebuggerParameters::new(listener, requests);
    parameters.settings = settings;
    let server = async {
        if let Err(error) = debug_worker::serve(driver, parameters, stopped).await {
            tracing::error!(%error, "the debug server has ended; the guest runs on, unless it is held: in that case end trapgate and start it again");
        }
    };
    let guest = async {
        let exit = controller.run().await;
        stop.send(WorkerRpc::Stop);
        exit
    };
    // Ends when the controller is dropped.
    let tell = async {
        while let Some(reason) = keeps.next().await {
            let text = session_text::kept(&reason, &how_to_connect);
            let _ = writeln!(io::stderr(), "{text}");
        }
    };
    let (exit, (), ()) = futures::join!(guest, server, tell);
    exit
}

fn listen(args: &RunArgs) -> Result<Option<DebugListener>, BindError> {
    let exposure = if args.gdb_allow_network {
        Exposure::Network
    } else {
        Exposure::LoopbackOnly
    };
    match &args.gdb {
        GdbServer::Off => Ok(None),
        GdbServer::At(address) => {
            let mut listener = DebugListener::bind(address, exposure)?;
            for user in &args.gdb_allow_user {
                listener.allow_user(user.0);
            }
            Ok(Some(listener))
        }
    }
}

fn open_serial(place: &SerialPlace) -> Result<(SerialOutput, SerialDrain), RunError> {
    match place {
        SerialPlace::Stdio => {
            SerialOutput::stdout().map_err(system("start the thread of the serial port"))
        }
        SerialPlace::File(path) => SerialOutput::file(path).map_err(|why| RunError::SerialFile {
            path: path.clone(),
            why,
        }),
        SerialPlace::Off => Ok(SerialOutput::off()),
    }
}

/// The file from which GDB reads symbols. A compressed image has none.
fn symbol_file(args: &RunArgs, kernel: &Kernel) -> Result<Option<PathBuf>, RunError> {
    match (&args.gdb, &args.kernel) {
        (GdbServer::Off, _) => Ok(None),
        (GdbServer::At(_), Some(path)) => Ok(kernel.is_elf().then(|| path.clone())),
        (GdbServer::At(_), None) => demo::write_elf().map(Some).map_err(system(
            "write the demo guest's ELF file for gdb to the cache folder",
        )),
    }
}

fn connect_terminal(
    serial: &crate::devices::serial::Com1<SerialOutput>,
    handle: &RunnerHandle,
) -> Result<Option<Arc<RawTerminal>>, RunError> {
    let terminal = RawTerminal::enter()
        .map_err(system("put the terminal into raw mode"))?
        .map(Arc::new);
    if terminal.is_some() {
        say(terminal::KEYS);
    }
    let handle = handle.clone();
    let end = move || {
        signals::note_key();
        handle.stop();
    };
    terminal::forward_input(serial.clone(), terminal.is_some(), end)
        .map_err(system("start the thread of the terminal"))?;
    Ok(terminal)
}

fn heed_signals(
    signals: Signals,
    handle: RunnerHandle,
    evictor: Option<Evictor>,
    terminal: Option<Arc<RawTerminal>>,
) -> Result<(), RunError> {
    let at_once = move |signal| {
        // This is the second signal, so the first end hangs.
        if let Some(terminal) = &terminal {
            terminal.restore();
        }
        std::process::exit(ExitStatus::Signal(signal).code().into());
    };
    let evict = move || match &evictor {
        Some(evictor) => evictor.evict(),
        None => tracing::warn!("SIGUSR1 evicts a debugger, and there is no debug server"),
    };
    signals
        .watch(move || handle.stop(), at_once, evict)
        .map_err(system("watch for signals"))
}
