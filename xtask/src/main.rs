//! The project's tooling: build, test, nested KVM, benchmarks.

mod bench;
mod cache;
mod conformance;
mod crates_io;
mod debian;
mod debian_qemu;
mod debuggers;
mod dependencies;
mod fmt;
mod interface;
mod mutants;
mod nested;
mod packages;
mod pictures;
mod process;
mod promises;
mod soak;
mod system_packages;
mod test;
mod test_output;
mod wire;

use clap::Parser as _;
use std::process::ExitCode;

#[derive(clap::Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
enum Task {
    /// Measure the debug server and QEMU's in one run.
    Bench(bench::Args),
    /// The echo server that `bench` starts.
    #[command(hide = true)]
    BenchEcho,
    /// The part of `bench --nested` that runs in the nested kvm-amd.
    #[command(hide = true)]
    BenchInside(bench::Inside),
    /// Run the conformance tests against `trapgate run`, `trapgate exec` around QEMU, and QEMU's own stub, and print the table.
    Conformance(conformance::Args),
    /// Run rustfmt and the project's own lints.
    Fmt(fmt::Args),
    /// Run everything that CI runs, and print a summary.
    Test(test::Args),
    /// Run the tests that repeat something, for a given time and from fresh seeds.
    Soak(soak::Args),
    /// Change the code of the runner, one expression at a time, and list the changes that no unit test notices.
    Mutants(mutants::Args),
    /// Unpack newer versions of GDB and LLDB for the tests; this machine's own are not changed.
    Debuggers,
    /// Unpack a newer QEMU than this machine's beside it, for the tests, and say how both are started.
    Qemus,
    /// Generate the pictures of README and Guide from their texts.
    Pictures(pictures::Args),
    /// Generate the Rust types of the wire from the `.proto` files.
    Wire,
    /// Boot a kernel with kvm-amd or kvm-intel on an emulated CPU, and run the tests or a command in it.
    Nested(nested::Args),
    /// Run tests in the nested kvm-intel under many timings, and list the timings under which a test fails.
    Hunt(nested::hunt::Args),
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Bench(args) => bench::main(&args),
        Task::BenchEcho => bench::serve_echo(),
        Task::BenchInside(args) => bench::inside(&args),
        Task::Conformance(args) => conformance::main(&args),
        Task::Fmt(args) => fmt::main(&args),
        Task::Test(args) => test::main(&args),
        Task::Soak(args) => soak::main(&args),
        Task::Mutants(args) => mutants::main(&args),
        Task::Debuggers => debuggers::main(),
        Task::Qemus => debian_qemu::main(),
        Task::Pictures(args) => pictures::main(&args),
        Task::Wire => wire::main(),
        Task::Nested(args) => nested::main(&args),
        Task::Hunt(args) => nested::hunt::main(&args),
    };
    match result {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
