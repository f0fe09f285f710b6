//! The async debugger: how it attaches and detaches, and what it has.

use crate::breakpoint::Breakpoint;
use crate::error::Error;
use crate::io_thread;
use crate::link::Answers;
use crate::link::Link;
use crate::options::Options;
use crate::place::Place;
use crate::run::Run;
use crate::stop::Stop;
use crate::symbols::Symbols;
use crate::vp::Vp;
use futures::FutureExt;
use mesh::rpc::PendingFailableRpc;
use pal_async::DefaultDriver;
use pal_async::task::Spawn;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::target::Target;

/// The debugger of a guest. While a program has it, no other debugger can attach.
///
/// The guest is stopped when it attaches. Dropping it detaches: breakpoints are removed, and the guest runs on. A future of a method may be dropped at any time: what
/// the method has asked the VMM for is still carried out.
#[derive(Debug)]
pub struct Debugger {
    pub(crate) link: Arc<Link>,
    pub(crate) run: Run,
    /// The request for what breakpoints print.
    pub(crate) printing: Option<PendingFailableRpc<Vec<u8>, DebugError>>,
    /// What breakpoints have printed and the program has not got, because it dropped a future of [`printed`](Self::printed).
    pub(crate) text: Vec<u8>,
    capabilities: Capabilities,
    symbols: Option<Symbols>,
}

impl Debugger {
    /// Attaches to the guest of a VMM in another process. The address is that behind the VMM's `--rpc`: `unix:PATH`.
    ///
    /// # Errors
    /// The socket cannot be used, the VMM speaks another version, or another debugger is attached.
    ///
    /// # Panics
    /// The process cannot have another thread or two more file descriptors. So does [`attach`](Self::attach).
    pub async fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, Options::default()).await
    }

    /// As [`connect`](Self::connect), with other settings.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub async fn connect_with(address: &str, options: Options) -> Result<Self, Error> {
        Self::connect_on(io_thread::driver(), address, options).await
    }

    /// Attaches to a guest of this process. The target is what the VMM's own debug server would send its requests to.
    ///
    /// # Errors
    /// Another debugger is attached, or the guest has ended.
    pub async fn attach(target: impl Into<Target>) -> Result<Self, Error> {
        Self::attach_with(target, Options::default()).await
    }

    /// As [`attach`](Self::attach), with other settings.
    ///
    /// # Errors
    /// Those of [`attach`](Self::attach).
    pub async fn attach_with(target: impl Into<Target>, options: Options) -> Result<Self, Error> {
        Self::attach_on(io_thread::driver(), target.into(), options).await
    }

    pub(crate) async fn connect_on(
        driver: DefaultDriver,
        address: &str,
        options: Options,
    ) -> Result<Self, Error> {
        let path = match address.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Path::new(path),
            _ => return Err(Error::Address(address.to_owned())),
        };
        let failed = |source| Error::Connect {
            path: path.to_owned(),
            source,
        };
        let socket = UnixStream::connect(path).map_err(failed)?;
        let (target, connection) = debug_wire::connect(&driver, socket).map_err(failed)?;
        let (tell, ended) = mesh::oneshot();
        driver
            .spawn("debug_client", async move {
                tell.send(connection.run().await.err().map(|why| why.to_string()));
            })
            .detach();
        let end = ended.map(Result::unwrap_or_default).boxed().shared();
        let answers = Answers {
            driver,
            limit: options.request_limit,
            end: Some(end),
        };
        Self::begin(target.into(), answers, &options).await
    }

    pub(crate) async fn attach_on(
        driver: DefaultDriver,
        target: Target,
        options: Options,
    ) -> Result<Self, Error> {
        let answers = Answers {
            driver,
            limit: options.request_limit,
            end: None,
        };
        Self::begin(target, answers, &options).await
    }

    async fn begin(target: Target, answers: Answers, options: &Options) -> Result<Self, Error> {
        let pending = DebugSession::attach(&target, options.if_lost);
        // The session has its own handle of the connection.
        drop(target);
        let Attached { session, info } = answers.of("attach", pending).await?;
        Ok(Self {
            link: Arc::new(Link::new(session, answers)),
            run: Run::stopped(info.stop.into()),
            printing: None,
            text: Vec::new(),
            capabilities: info.capabilities,
            symbols: None,
        })
    }

    /// Ends the session and lets the guest run. When the answer comes, nothing of this program is left in the guest.
    ///
    /// # Errors
    /// The VMM has not answered, or is gone.
    pub async fn detach(self) -> Result<(), Error> {
        self.end(DetachAction::Resume).await
    }

    /// Ends the session, and leaves the guest stopped until the next debugger attaches.
    ///
    /// # Errors
    /// Those of [`detach`](Self::detach).
    pub async fn detach_stopped(self) -> Result<(), Error> {
        self.end(DetachAction::Stay).await
    }

    /// Ends the guest.
    ///
    /// # Errors
    /// Those of [`detach`](Self::detach).
    pub async fn kill(self) -> Result<(), Error> {
        self.end(DetachAction::Kill).await
    }

    async fn end(self, action: DetachAction) -> Result<(), Error> {
        self.link.call("detach", DebugRequest::Detach, action).await
    }

    /// The VP with this index: 0 is the VP that starts first. The VMM checks the index at each request.
    pub const fn vp(&self, index: u32) -> Vp<'_> {
        Vp {
            debugger: self,
            index: VpIndex::new(index),
        }
    }

    /// The VP of the last stop. After a stop that concerned the whole guest, such as an interruption, the VP of the stop before, while the guest has this VP; or else the first VP.
    pub fn current(&self) -> Vp<'_> {
        self.vp(self.run.current())
    }

    /// The last stop.
    pub const fn last_stop(&self) -> &Stop {
        self.run.last()
    }

    /// The features that work on the VMM's host.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Reads the symbols of the ELF file that the guest executes, so that places and types have names.
    ///
    /// # Errors
    /// The file cannot be read, or is no ELF file with readable debug information.
    pub fn load_symbols(&mut self, path: impl AsRef<Path>) -> Result<&Symbols, Error> {
        Ok(self.symbols.insert(Symbols::load(path)?))
    }

    /// Sets symbols that were read before.
    pub fn set_symbols(&mut self, symbols: Symbols) {
        self.symbols = Some(symbols);
    }

    /// The symbols.
    pub const fn symbols(&self) -> Option<&Symbols> {
        self.symbols.as_ref()
    }

    /// The address of a place, such as `"counter"`, for a condition or for arithmetic.
    ///
    /// # Errors
    /// No symbols are loaded, or they do not have the name.
    pub fn address<'a>(&self, place: impl Into<Place<'a>>) -> Result<u64, Error> {
        let address = place.into().address(self.symbols())?;
        Ok(address.value())
    }

    /// Sets a breakpoint at an instruction, for all VPs.
    ///
    /// # Errors
    /// The VMM permits no more breakpoints, or no debug register is free where one is needed.
    pub async fn break_at(&self, place: impl Into<Place<'_>>) -> Result<Breakpoint, Error> {
        let address = place.into().address(self.symbols())?;
        Breakpoint::set(&self.link, BreakpointKind::Software, address, 1).await
    }

    /// As [`break_at`](Self::break_at), with a debug register: no byte of the guest's code changes, so the code may come into memory later. x86 has four, for
    /// watchpoints too.
    ///
    /// # Errors
    /// No debug register is free.
    pub async fn hbreak_at(&self, place: impl Into<Place<'_>>) -> Result<Breakpoint, Error> {
        let address = place.into().address(self.symbols())?;
        Breakpoint::set(&self.link, BreakpointKind::Execute, address, 1).await
    }

    /// Watches `len` bytes: a VP stops after it has written one of them. x86 watches 1, 2, 4 or 8 bytes at a multiple of the length.
    ///
    /// # Errors
    /// The hardware cannot watch this, or no debug register is free.
    pub async fn watch(&self, place: impl Into<Place<'_>>, len: u64) -> Result<Breakpoint, Error> {
        let address = place.into().address(self.symbols())?;
        Breakpoint::set(&self.link, BreakpointKind::Write, address, len).await
    }

    /// As [`watch`](Self::watch), for reads and writes.
    ///
    /// # Errors
    /// Those of [`watch`](Self::watch).
    pub async fn watch_access(
        &self,
        place: impl Into<Place<'_>>,
        len: u64,
    ) -> Result<Breakpoint, Error> {
        let address = place.into().address(self.symbols())?;
        Breakpoint::set(&self.link, BreakpointKind::ReadWrite, address, len).await
    }
}
