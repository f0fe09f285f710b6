//! What a worker is told when it begins, and the descriptors that it gets.

use crate::DebugListener;
use crate::DebuggerParameters;
use crate::SessionSettings;
use crate::Statistics;
use crate::listener::SharedListener;
use crate::symbol_file::AboutFile;
use crate::symbol_file::SymbolFile;
use serde::Deserialize;
use serde::Serialize;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::target::Target;

/// Parameters of a worker. The descriptors that come with them are, in this order: the debug socket, the listener, the listener of the OpenMetrics endpoint, and the file with the symbols.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Invitation {
    /// The log's setting, in the VMM's own form.
    pub(super) log: String,
    /// `None`: the worker only enters its sandbox and reports it.
    pub(super) task: Option<Task>,
}

/// A debug server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    listener: SharedListener,
    metrics: Option<SharedListener>,
    symbols: Option<AboutFile>,
    settings: Settings,
    /// Whether the addresses of clients may be addresses of other machines.
    pub(super) network: bool,
}

/// [`SessionSettings`] without the file with the symbols.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    on_disconnect: DetachAction,
    rpc_deadline: Duration,
    idle_timeout: Duration,
    refuse_after: Duration,
    /// The bytes of the path.
    dump_folder: Option<Vec<u8>>,
}

/// What the VMM keeps of the parameters of a server, to invite one worker after another.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) listener: DebugListener,
    pub(super) requests: Target,
    settings: SessionSettings,
    metrics: Option<DebugListener>,
}

impl Shared {
    pub(super) fn of(parameters: DebuggerParameters) -> Self {
        Self {
            listener: parameters.listener,
            requests: parameters.requests,
            settings: parameters.settings,
            #[cfg(feature = "open-metrics")]
            metrics: parameters.metrics,
            #[cfg(not(feature = "open-metrics"))]
            metrics: None,
        }
    }

    /// What the worker at the other end of `debug` is told.
    pub(super) fn task(&self, debug: UnixStream) -> io::Result<(Task, Vec<OwnedFd>)> {
        let (socket, listener) = self.listener.share()?;
        let mut descriptors = vec![debug.into(), socket];
        let mut metrics = None;
        if let Some(listener) = &self.metrics {
            let (socket, shared) = listener.share()?;
            descriptors.push(socket);
            metrics = Some(shared);
        }
        let mut symbols = None;
        if let Some(file) = &self.settings.symbols {
            let (file, about) = file.share()?;
            descriptors.push(file);
            symbols = Some(about);
        }
        let network = match self.listener.local_addr() {
            crate::ListenAddress::Tcp(address) => !address.ip().is_loopback(),
            crate::ListenAddress::Unix(_) => false,
        };
        let settings = Settings::of(&self.settings);
        let task = Task {
            listener,
            metrics,
            symbols,
            settings,
            network,
        };
        Ok((task, descriptors))
    }
}

impl Task {
    /// Where the worker may write core files.
    pub(super) fn dump_folder(&self) -> Option<PathBuf> {
        let bytes = self.settings.dump_folder.clone()?;
        Some(OsString::from_vec(bytes).into())
    }

    /// The debug socket of a worker, from its descriptors.
    pub(super) fn debug(descriptors: &mut Vec<OwnedFd>) -> io::Result<UnixStream> {
        match descriptors.is_empty() {
            true => Err(io::ErrorKind::InvalidInput.into()),
            false => Ok(descriptors.remove(0).into()),
        }
    }

    /// The parameters of the worker's server.
    pub(super) fn parameters(
        self,
        descriptors: Vec<OwnedFd>,
        requests: Target,
    ) -> io::Result<DebuggerParameters> {
        let missing = || io::Error::from(io::ErrorKind::InvalidInput);
        let dump_folder = self.dump_folder();
        let mut descriptors = descriptors.into_iter();
        let listener = descriptors.next().ok_or_else(missing)?;
        let listener = DebugListener::inherited(listener, self.listener);
        let metrics = match self.metrics {
            None => None,
            Some(shared) => {
                let listener = descriptors.next().ok_or_else(missing)?;
                Some(DebugListener::inherited(listener, shared))
            }
        };
        #[cfg(not(feature = "open-metrics"))]
        drop(metrics);
        let mut settings = self.settings.into_settings(dump_folder);
        if let Some(about) = self.symbols {
            let file = descriptors.next().ok_or_else(missing)?;
            settings.symbols = Some(SymbolFile::inherited(file, about));
        }
        Ok(DebuggerParameters {
            listener,
            requests,
            settings,
            statistics: Statistics::default(),
            #[cfg(feature = "open-metrics")]
            metrics,
        })
    }
}

impl Settings {
    fn of(settings: &SessionSettings) -> Self {
        let folder = settings.dump_folder.clone();
        Self {
            on_disconnect: settings.on_disconnect,
            rpc_deadline: settings.rpc_deadline,
            idle_timeout: settings.idle_timeout,
            refuse_after: settings.refuse_after,
            dump_folder: folder.map(|folder| folder.into_os_string().into_vec()),
        }
    }

    fn into_settings(self, dump_folder: Option<PathBuf>) -> SessionSettings {
        SessionSettings {
            on_disconnect: self.on_disconnect,
            rpc_deadline: self.rpc_deadline,
            idle_timeout: self.idle_timeout,
            refuse_after: self.refuse_after,
            dump_folder,
            symbols: None,
        }
    }
}
