//! What the program does with the guest.

use debug_client::Error;
use debug_client::Expr;
use debug_client::Printf;
use debug_client::StopKind;
use debug_client::Value;
use debug_client::blocking::Debugger;
use std::time::Duration;

/// Long enough for a host that emulates the guest.
const LIMIT: Duration = Duration::from_secs(60);

/// What the program saw of two rounds of one CPU.
pub(crate) struct Rounds {
    /// The CPU after the rounds.
    pub(crate) cpu: Value,
    /// By how many rounds its own count grew.
    pub(crate) counted: u64,
}

/// Waits until a CPU has come to `do_round(struct cpu *cpu)` three times, so that it has made two rounds.
pub(crate) fn two_rounds(vm: &mut Debugger) -> Result<Rounds, Error> {
    let round = vm.break_at("do_round")?;
    vm.run_until(&round, LIMIT)?;
    let address = vm.current().arg(0)?;
    let before = vm.read_struct("struct cpu", address)?;
    let mut left = 2;
    while left > 0 {
        vm.run_until(&round, LIMIT)?;
        // The other CPUs come to the breakpoint too.
        if vm.current().arg(0)? == address {
            left -= 1;
        }
    }
    let cpu = vm.read_struct("struct cpu", address)?;
    let rounds = |cpu: &Value| cpu["rounds"].as_u64().unwrap_or_default();
    let counted = rounds(&cpu) - rounds(&before);
    // Dropping `round` removes the breakpoint.
    Ok(Rounds { cpu, counted })
}

/// Lets the guest run until all CPUs together have made more than `number` rounds, and returns how many they have made.
pub(crate) fn run_to_round(vm: &mut Debugger, number: u64) -> Result<u64, Error> {
    let round = vm.break_at("do_round")?;
    let counter = Expr::constant(vm.address("counter")?).load_u64();
    // Each CPU that comes to the breakpoint compares by itself. The rounds before are no stops.
    vm.stop_if(&round, [Expr::constant(number).less(counter)])?;
    vm.run_until(&round, LIMIT)?;
    vm.read("counter")
}

/// Prints the number of the round at each round that begins, without a stop, until there are `lines` lines.
pub(crate) fn print_rounds(vm: &mut Debugger, lines: usize) -> Result<String, Error> {
    let round = vm.break_at("do_round")?;
    let counter = Expr::constant(vm.address("counter")?).load_u64();
    vm.print_at(&round, Printf::new("round %lu\n", [counter]), [])?;
    vm.resume()?;
    let mut text = String::new();
    while text.lines().count() < lines {
        text += &vm.printed(LIMIT)?;
    }
    vm.interrupt()?;
    Ok(text)
}

/// The number of rounds of all CPUs, after one instruction of a new one.
pub(crate) async fn async_rounds(address: &str, elf: &str) -> Result<u64, Error> {
    let mut vm = debug_client::Debugger::connect(address).await?;
    vm.load_symbols(elf)?;
    let round = vm.break_at("do_round").await?;
    vm.run_until(&round, LIMIT).await?;
    vm.step().await?;
    // Dropping `vm` detaches, and the guest runs on.
    vm.read("counter").await
}

/// Lets the guest power itself off, as a debugger's user would: `set var scenario = SCENARIO_POWER_OFF`.
pub(crate) fn power_off(vm: &mut Debugger) -> Result<(), Error> {
    vm.write("scenario", 1_u32)?;
    vm.resume()?;
    vm.wait_for(StopKind::PowerOff, LIMIT)?;
    vm.resume()
}
