//! Trapgate: a small VMM on KVM with a GDB server in it.

mod arch;
mod cli;
#[cfg(feature = "gdb")]
mod client;
#[cfg(feature = "gdb")]
mod debug_server;
#[cfg(not(feature = "gdb"))]
#[path = "no_debug_server.rs"]
mod debug_server;
#[cfg(feature = "gdb")]
mod demo;
mod devices;
mod doctor;
#[cfg(feature = "gdb")]
mod exec;
mod exit_status;
mod interrupts;
#[cfg(feature = "gdb")]
mod isolation;
mod kernel;
mod kernel_facts;
mod kvm_host;
mod machine;
mod manual;
mod memory;
#[cfg(feature = "gdb")]
mod rpc;
mod run;
#[cfg(feature = "gdb")]
mod search_path;
mod serial_output;
mod session_text;
mod signals;
mod terminal;
mod vm;

use clap::Parser as _;
use cli::Cli;
use cli::Command;
use cli::log_args;
#[cfg(feature = "gdb")]
use client::Client;
use exit_status::ExitStatus;
use std::io;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "gdb")]
    debug_worker::process::try_run_worker(log_args::begin_in_worker);
    let cli = Cli::parse();
    // `exec` gives the setting to the library in the VMM.
    let log = match &cli.command {
        None => cli.run.log.log.clone(),
        Some(Command::Run(args)) => args.log.log.clone(),
        Some(_) => None,
    };
    log_args::begin(&log.unwrap_or_default());
    let status = match cli.command {
        None => run_guest(&cli.run),
        Some(Command::Run(args)) => run_guest(&args),
        #[cfg(feature = "gdb")]
        Some(Command::Exec(args)) => {
            let error = exec::exec(&args);
            complain(&error);
            error.status()
        }
        #[cfg(feature = "gdb")]
        Some(Command::Rpc(args)) => rpc::rpc(&args).unwrap_or_else(|error| {
            complain(&error);
            ExitStatus::BadInput
        }),
        #[cfg(feature = "gdb")]
        Some(Command::Gdb(args)) => start_client(Client::Gdb, &args),
        #[cfg(feature = "gdb")]
        Some(Command::Lldb(args)) => start_client(Client::Lldb, &args),
        Some(Command::Doctor) => doctor::doctor(),
        Some(Command::Completions { shell }) => {
            written("standard output", manual::completions(shell))
        }
        Some(Command::Man { folder }) => {
            let place = folder.as_deref().unwrap_or("standard output".as_ref());
            written(&place.display().to_string(), manual::man(folder.as_deref()))
        }
    };
    status.into()
}

fn run_guest(args: &cli::RunArgs) -> ExitStatus {
    run::run(args).unwrap_or_else(|error| {
        complain(&error);
        error.status()
    })
}

#[cfg(feature = "gdb")]
fn start_client(client: Client, args: &cli::ClientArgs) -> ExitStatus {
    let error = client::start(client, args);
    complain(&error);
    error.status()
}

fn written(place: &str, result: io::Result<()>) -> ExitStatus {
    match result {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            let _ = writeln!(io::stderr(), "trapgate: cannot write to {place}: {error}");
            ExitStatus::BadInput
        }
    }
}

/// Prints a line for the user. An output that is closed (a closed pipe) is no reason to end.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints an error with all its causes.
fn complain(error: &dyn std::error::Error) {
    let mut text = format!("trapgate: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("\n  because: {error}");
        cause = error.source();
    }
    let _ = writeln!(io::stderr(), "{text}");
}
