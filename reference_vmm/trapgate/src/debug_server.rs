//! The debug server of a guest: its address, its settings, and how to connect.

use crate::cli::RunArgs;
use crate::cli::debug_args::GdbServer;
use crate::cli::debug_args::Isolate;
use crate::cli::debug_args::OnCrash;
use crate::client;
use crate::demo;
use crate::exit_status::ExitStatus;
use crate::isolation;
use crate::kernel::Kernel;
use crate::say;
use crate::session_text;
use debug_worker::Announcement;
use debug_worker::BindError;
use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Exposure;
use debug_worker::ListenAddress;
use debug_worker::RunningServer;
use debug_worker::SessionSettings;
use debug_worker::SymbolFile;
use debug_worker::process::WorkerHost;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use mesh::worker::WorkerRpc;
use pal_async::DefaultDriver;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::stop::DebugStopReason;
use vp_runner::probe;
use vp_runner::probe::ProbeError;
use vp_runner::probe::Report;
use vp_runner::runner;
use vp_runner::runner::Controller;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::RunnerParams;
use vp_runner::runner::StartMode;

/// The reason why there is no debug server.
#[derive(Debug, Error)]
pub(crate) enum ServerError {
    /// A crashed guest would be kept for a debugger, and no debugger can attach.
    #[error(
        "--on-crash stop keeps the guest for a debugger, and with --gdb off no debugger can attach; give --gdb an address, or --rpc a socket, or omit --on-crash"
    )]
    KeptForNobody,
    /// There would be no counters to publish.
    #[error(
        "--metrics publishes the counters of the debug server, and with --gdb off there is none; give --gdb an address, or omit --metrics"
    )]
    MetricsOfNobody,
    /// The server cannot listen on its address.
    #[error(
        "cannot start the debug server (--gdb 127.0.0.1:0 takes a free port, --gdb unix:PATH a socket file, --gdb-allow-network any address)"
    )]
    Listen(#[from] BindError),
    /// The OpenMetrics endpoint cannot listen on its socket.
    #[error("cannot start the OpenMetrics endpoint (--metrics unix:PATH)")]
    Metrics(#[source] BindError),
    /// The socket for programs cannot listen.
    #[error("cannot serve programs (--rpc unix:PATH)")]
    Rpc(#[source] BindError),
    /// The demo guest's file cannot be written.
    #[error("cannot write the demo guest's ELF file for gdb to the cache folder: {0}")]
    DemoGuest(io::Error),
    /// The file with the symbols cannot be read.
    #[error(
        "cannot read the file with the guest's symbols, {}: {why}; give --symbols the guest's ELF file",
        path.display()
    )]
    SymbolFile {
        /// The path of the file.
        path: PathBuf,
        /// The host's error.
        why: io::Error,
    },
    /// The debug server cannot be isolated as the user requires.
    #[error(
        "--isolate require, and the debug server cannot be isolated completely here: {0}; use --isolate auto to take what there is"
    )]
    Isolation(String),
    /// The probe of the host's KVM failed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl ServerError {
    /// The exit status of the program for this error.
    pub(crate) const fn status(&self) -> ExitStatus {
        match self {
            Self::KeptForNobody
            | Self::MetricsOfNobody
            | Self::Listen(_)
            | Self::Metrics(_)
            | Self::Rpc(_)
            | Self::SymbolFile { .. }
            | Self::Isolation(_) => ExitStatus::BadInput,
            Self::DemoGuest(_) | Self::Probe(_) => ExitStatus::Failed,
        }
    }
}

/// The debug server before it runs. At least one of `gdb` and `rpc` is there.
pub(crate) struct Server {
    gdb: Option<Gdb>,
    /// The socket for programs.
    rpc: Option<DebugListener>,
    /// The line to paste.
    how_to_connect: String,
    start: StartMode,
    on_crash: OnCrash,
    freeze_time: FreezeTime,
    report: Report,
    /// The crashes after which the guest was kept.
    keeps: Option<mesh::Receiver<DebugStopReason>>,
}

/// The server for GDB and LLDB before it runs.
struct Gdb {
    listener: DebugListener,
    settings: SessionSettings,
    metrics: Option<DebugListener>,
    /// `None`: the server runs in this process.
    workers: Option<WorkerHost>,
    /// The file by which `trapgate gdb` finds the server. Not the worker's: the worker can remove no file.
    _announcement: Option<Announcement>,
}

impl Server {
    /// Listens, and tries what this host can do. `None` with `--gdb off` and without `--rpc`.
    pub(crate) fn prepare(args: &RunArgs, kernel: &Kernel) -> Result<Option<Self>, ServerError> {
        let debug = &args.debug;
        if debug.gdb == GdbServer::Off && debug.server.metrics.is_some() {
            return Err(ServerError::MetricsOfNobody);
        }
        if debug.gdb == GdbServer::Off && debug.server.rpc.is_none() {
            return match debug.on_crash {
                OnCrash::Stop => Err(ServerError::KeptForNobody),
                OnCrash::End => Ok(None),
            };
        }
        let symbols = symbol_file(args, kernel)?;
        let gdb = match &debug.gdb {
            GdbServer::At(address) => Some(gdb(args, address, symbols.as_deref())?),
            GdbServer::Off => None,
        };
        let rpc = socket(debug.server.rpc.as_ref()).map_err(ServerError::Rpc)?;
        if rpc.is_some() && debug.isolate == Isolate::Require {
            tracing::warn!(
                "--isolate require is for the GDB server; --rpc is served in the process of the VMM, for programs of this user and of root"
            );
        }
        let addresses = (gdb.as_ref().map(Gdb::address), rpc.as_ref());
        let how_to_connect = match addresses {
            (Some(address), _) => session_text::connect(&address, symbols.as_deref()),
            (None, rpc) => session_text::programs(rpc.map(DebugListener::local_addr).as_ref()),
        };
        Ok(Some(Self {
            how_to_connect,
            gdb,
            rpc,
            start: match debug.no_wait {
                true => StartMode::Run,
                false => StartMode::WaitForDebugger,
            },
            on_crash: debug.on_crash,
            freeze_time: debug.freeze_time.into(),
            report: probe::run()?,
            keeps: None,
        }))
    }

    /// Whether the guest waits for a debugger.
    pub(crate) const fn start(&self) -> StartMode {
        self.start
    }

    /// Who can continue the guest.
    pub(crate) const fn debugger(&self) -> &'static str {
        match self.gdb {
            Some(_) => "gdb",
            None => "a program",
        }
    }

    /// Says where the server listens, and how to connect.
    pub(crate) fn announce(&self) {
        if let Some(rpc) = &self.rpc {
            say(&session_text::rpc(&rpc.local_addr()));
        }
        if let Some(gdb) = &self.gdb {
            say(&session_text::server(&gdb.address(), &self.how_to_connect));
        }
    }

    /// What takes the guest away from a debugger.
    pub(crate) fn evictor(&self) -> Evictor {
        let gdb = self.gdb.as_ref().map(|gdb| gdb.listener.evictor());
        let rpc = self.rpc.as_ref().map(DebugListener::evictor);
        Evictor(gdb.into_iter().chain(rpc).collect())
    }

    /// Sets what the runner has to know of the server.
    pub(crate) fn configure(&mut self, params: RunnerParams) -> RunnerParams {
        let on_crash = match self.on_crash {
            OnCrash::End => runner::OnCrash::End,
            OnCrash::Stop => {
                let (kept, keeps) = mesh::channel();
                self.keeps = Some(keeps);
                runner::OnCrash::Stop { kept }
            }
        };
        params
            .start(self.start)
            .on_crash(on_crash)
            .freeze_time(self.freeze_time)
            .report(self.report.clone())
    }

    /// Runs the controller and the debug server on this thread, so that a request and its answer wake no other thread.
    pub(crate) async fn serve(
        self,
        driver: DefaultDriver,
        requests: mesh::Sender<DebugMessage>,
        controller: Controller,
    ) -> RunnerExit {
        let mut keeps = self.keeps;
        let (stop_gdb, gdb_stopped) = mesh::channel();
        let (stop_rpc, rpc_stopped) = mesh::channel();
        let gdb = self
            .gdb
            .map(|gdb| gdb.serve(driver.clone(), requests.clone(), gdb_stopped));
        let rpc = self
            .rpc
            .map(|rpc| debug_worker::serve_rpc(driver, rpc, requests, rpc_stopped));
        let guest = async {
            let exit = controller.run().await;
            stop_gdb.send(WorkerRpc::Stop);
            stop_rpc.send(WorkerRpc::Stop);
            Some(exit)
        };
        // Ends when the controller is dropped.
        let tell = async {
            while let Some(keeps) = &mut keeps
                && let Some(reason) = keeps.next().await
            {
                let text = session_text::kept(&reason, &self.how_to_connect);
                let _ = writeln!(io::stderr(), "{text}");
            }
            None
        };
        // Each of these futures has a waker of its own. `join!` would poll all of them whenever one is woken, which happens several times for each request.
        let parts: FuturesUnordered<LocalBoxFuture<'_, Option<RunnerExit>>> = [
            guest.boxed_local(),
            log_failure(gdb).map(|()| None).boxed_local(),
            log_failure(rpc).map(|()| None).boxed_local(),
            tell.boxed_local(),
        ]
        .into_iter()
        .collect();
        let exits = parts
            .filter_map(std::future::ready)
            .collect::<Vec<_>>()
            .await;
        exits.into_iter().next().expect("the guest is a part")
    }
}

impl Gdb {
    fn address(&self) -> ListenAddress {
        self.listener.local_addr()
    }

    async fn serve(
        self,
        driver: DefaultDriver,
        requests: mesh::Sender<DebugMessage>,
        stopped: mesh::Receiver<WorkerRpc>,
    ) -> io::Result<()> {
        let mut parameters = DebuggerParameters::new(self.listener, requests);
        parameters.settings = self.settings;
        parameters.metrics = self.metrics;
        match self.workers {
            Some(workers) => workers.serve(driver, parameters, stopped).await,
            None => debug_worker::serve(driver, parameters, stopped).await,
        }
    }
}

/// What takes the guest away from whoever debugs it.
pub(crate) struct Evictor(Vec<debug_worker::Evictor>);

impl Evictor {
    pub(crate) fn evict(&self) {
        self.0.iter().for_each(debug_worker::Evictor::evict);
    }
}

async fn log_failure(server: Option<impl Future<Output = io::Result<()>>>) {
    if let Some(server) = server
        && let Err(error) = server.await
    {
        tracing::error!(%error, "the debug server has ended; the guest runs on, unless it is held: in that case end trapgate and start it again");
    }
}

fn gdb(
    args: &RunArgs,
    address: &ListenAddress,
    symbols: Option<&Path>,
) -> Result<Gdb, ServerError> {
    let server = &args.debug.server;
    let listener = listen(args, address)?;
    let mut settings = SessionSettings::default();
    settings.on_disconnect = server.on_disconnect.into();
    settings.idle_timeout = Duration::from_secs(server.idle_timeout.into());
    settings.dump_folder.clone_from(&server.dump_dir);
    if let Some(path) = symbols {
        let opened = SymbolFile::open(path).map_err(|why| ServerError::SymbolFile {
            path: path.to_owned(),
            why,
        })?;
        settings.symbols = Some(opened);
    }
    let metrics = socket(server.metrics.as_ref()).map_err(ServerError::Metrics)?;
    Ok(Gdb {
        _announcement: announce(args, listener.local_addr(), symbols),
        listener,
        settings,
        metrics,
        workers: isolation::workers(args.debug.isolate, &args.log)?,
    })
}

/// A guest that cannot be announced runs all the same.
fn announce(
    args: &RunArgs,
    address: ListenAddress,
    symbols: Option<&Path>,
) -> Option<Announcement> {
    let runtime_dir = client::runtime_dir()?;
    let guest = session_text::guest_name(args);
    let server = RunningServer::new(address, guest, symbols.map(Path::to_owned));
    let announced = Announcement::new(&runtime_dir, &server);
    announced
        .inspect_err(|error| tracing::info!(%error, "`trapgate gdb` will not find this guest"))
        .ok()
}

fn listen(args: &RunArgs, address: &ListenAddress) -> Result<DebugListener, BindError> {
    let mut listener = DebugListener::bind(address, args.debug.server.exposure())?;
    for user in &args.debug.server.gdb_allow_user {
        listener.allow_user(user.0);
    }
    Ok(listener)
}

/// A unix socket, if there is to be one.
fn socket(address: Option<&ListenAddress>) -> Result<Option<DebugListener>, BindError> {
    address
        .map(|address| DebugListener::bind(address, Exposure::LoopbackOnly))
        .transpose()
}

/// The file from which GDB reads symbols. A compressed image has none.
fn symbol_file(args: &RunArgs, kernel: &Kernel) -> Result<Option<PathBuf>, ServerError> {
    if let Some(path) = &args.debug.server.symbols {
        return Ok(Some(path.clone()));
    }
    match &args.kernel {
        Some(path) => Ok(kernel.is_elf().then(|| path.clone())),
        None => demo::write_elf().map(Some).map_err(ServerError::DemoGuest),
    }
}
