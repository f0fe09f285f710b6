//! A program that debugs the demo guest of `trapgate run --rpc unix:PATH`. A page of the Guide walks through `session.rs`.
//!
//! `cargo run --package trapgate-debug-client --example rounds -- unix:PATH demo-guest.elf`

mod session;

use debug_client::Error;
use debug_client::blocking::Debugger;
use session::async_rounds;
use session::power_off;
use session::print_rounds;
use session::run_to_round;
use session::two_rounds;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [address, elf] = words.as_slice() else {
        eprintln!("write: rounds unix:PATH demo-guest.elf");
        return ExitCode::from(2);
    };
    match run(address, elf) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rounds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(address: &str, elf: &str) -> Result<(), Error> {
    let mut vm = Debugger::connect(address)?;
    vm.load_symbols(elf)?;
    let rounds = two_rounds(&mut vm)?;
    println!("{} rounds, now {}", rounds.counted, rounds.cpu);
    let reached = run_to_round(&mut vm, 50)?;
    println!("{reached} rounds reached");
    print!("{}", print_rounds(&mut vm, 3)?);
    vm.detach()?;
    // Any executor will do.
    let counter = pal_async::local::block_on(async_rounds(address, elf))?;
    println!("{counter} rounds of all CPUs");
    let mut vm = Debugger::connect(address)?;
    vm.load_symbols(elf)?;
    power_off(&mut vm)
}
