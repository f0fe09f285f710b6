//! `trapgate exec`: runs another VMM, with the debug server preloaded into it.

mod environment;
mod library;
mod vmm_file;

use crate::cli::ExecArgs;
use crate::exit_status::ExitStatus;
use crate::session_text;
use debug_worker::BindError;
use debug_worker::DebugListener;
use debug_worker::SymbolFile;
use library::LibraryError;
use std::ffi::OsString;
use std::io;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use thiserror::Error;
use vmm_file::VmmFileError;

/// The reason why the VMM was not started. A VMM that was started has taken the place of this program.
#[derive(Debug, Error)]
pub(crate) enum ExecError {
    /// The VMM cannot be debugged by a preloaded library.
    #[error(transparent)]
    Vmm(#[from] VmmFileError),
    /// There is no library to preload.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The debug server could not listen on its address.
    #[error(
        "the debug server cannot listen (--gdb 127.0.0.1:0 takes a free port, --gdb unix:PATH a socket file, --gdb-allow-network any address)"
    )]
    Gdb(#[from] BindError),
    /// The file with the symbols cannot be read.
    #[error(
        "cannot read the file with the guest's symbols, {}; give --symbols the guest's ELF file",
        path.display()
    )]
    Symbols {
        /// The path of the file.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// The kernel did not start the program.
    #[error("cannot start {}; check that you may execute it, and its interpreter", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The host's error.
        source: io::Error,
    },
}

/// Runs the VMM in place of this program, so it has this program's process id, signals and exit status. Returns if that is not possible.
pub(crate) fn exec(args: &ExecArgs) -> ExecError {
    let prepared = prepare(args);
    let (vmm, mut command) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let text = session_text::exec(&vmm);
    let _ = writeln!(io::stderr(), "{text}");
    let program = PathBuf::from(command.get_program());
    let source = command.exec();
    ExecError::Start { program, source }
}

/// The VMM, and the command that starts the VMM.
fn prepare(args: &ExecArgs) -> Result<(PathBuf, Command), ExecError> {
    let (name, rest) = match args.command.split_first() {
        Some((name, rest)) => (name.clone(), rest),
        None => (OsString::new(), &[][..]),
    };
    check_symbols(args)?;
    let program = vmm_file::find(&name)?;
    let vmm = vmm_file::check(&program, rest)?.to_owned();
    let library = library::find(args.library.as_deref())?;
    check_address(args)?;
    let mut command = Command::new(program);
    // The VMM sees the name that the user has typed.
    command.arg0(&name).args(rest);
    environment::set(&mut command, args, &library);
    Ok((vmm, command))
}

/// The library listens when the VMM creates a VM. An address that cannot be used is reported now.
fn check_address(args: &ExecArgs) -> Result<(), BindError> {
    DebugListener::bind(&args.gdb, args.server.exposure()).map(drop)
}

/// The library reads the file when the VMM creates a VM. A file that cannot be read is reported now.
fn check_symbols(args: &ExecArgs) -> Result<(), ExecError> {
    let Some(path) = &args.server.symbols else {
        return Ok(());
    };
    SymbolFile::open(path)
        .map(drop)
        .map_err(|source| ExecError::Symbols {
            path: path.clone(),
            source,
        })
}

impl ExecError {
    /// The exit status of the program for this error.
    pub(crate) fn status(&self) -> ExitStatus {
        ExitStatus::BadInput
    }
}
