//! `trapgate run`: runs a guest with its debug server and its terminal.

use crate::cli::RunArgs;
use crate::cli::SerialPlace;
use crate::debug_server::Evictor;
use crate::debug_server::Server;
use crate::debug_server::ServerError;
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
use pal_async::DefaultPool;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use vp_runner::runner::ResetPolicy;
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
    /// The debug server cannot start.
    #[error(transparent)]
    Server(#[from] ServerError),
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
            Self::Host(_) | Self::Kernel(_) | Self::Vm(_) | Self::SerialFile { .. } => {
                ExitStatus::BadInput
            }
            Self::Server(error) => error.status(),
            Self::Start(_) | Self::System { .. } => ExitStatus::Failed,
        }
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> RunError {
    move |why| RunError::System { what, why }
}

/// Runs a guest until it ends.
pub(crate) fn run(args: &RunArgs) -> Result<ExitStatus, RunError> {
    let signals = Signals::note().map_err(system("watch for signals"))?;
    let host = KvmHost::open()?;
    let files = match &args.kernel {
        Some(kernel) => BootFiles::read(kernel, args.initrd.as_deref())?,
        None => BootFiles {
            kernel: Kernel::demo(),
            initrd: None,
        },
    };
    let demo_most = args.kernel.is_none().then_some(demo_guest::MAX_CPUS);
    let cpus = check_cpus(&host, args.cpus, demo_most)?;
    let server = Server::prepare(args, &files.kernel)?;
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

    let start = server.as_ref().map_or(StartMode::Run, Server::start);
    let debugger = server.as_ref().map_or("nobody", Server::debugger);
    say(&session_text::guest(args, start, debugger));
    if let Some(server) = &server {
        server.announce();
    }
    run_vm(vm, server, args, drain, signals)
}

/// Starts the VPs and waits until the guest has ended.
fn run_vm(
    vm: Vm,
    mut server: Option<Server>,
    args: &RunArgs,
    drain: SerialDrain,
    signals: Signals,
) -> Result<ExitStatus, RunError> {
    let (requests, debug) = mesh::channel();
    let on_reset = match args.no_reboot {
        true => ResetPolicy::Exit,
        false => ResetPolicy::Reset,
    };
    let memory = vm.ram.memory().clone();
    let mut params =
        RunnerParams::new(vm.fd.clone(), vm.vcpus, memory, vm.pc.clone(), debug).on_reset(on_reset);
    if let Some(server) = &mut server {
        params = server.configure(params);
    }
    let (handle, controller) = vp_runner::start(params)?;
    let terminal = match args.serial {
        SerialPlace::Stdio => connect_terminal(&vm.serial, &handle)?,
        SerialPlace::File(_) | SerialPlace::Off => None,
    };
    let evictor = server.as_ref().map(Server::evictor);
    heed_signals(signals, handle, evictor, terminal.clone())?;

    let exit = DefaultPool::run_with(async |driver| match server {
        Some(server) => server.serve(driver, requests, controller).await,
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
