//! Programs that debug the demo guest over the socket of `--rpc`, and what else comes to this socket.

#[path = "../../../../debug_client/examples/rounds/session.rs"]
mod session;

mod scripts;

use debug_client::Error;
use debug_client::GuestEventKind;
use debug_client::StopKind;
use debug_client::Symbols;
use debug_client::Value;
use debug_client::blocking::Debugger;
use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use test_machine::packets::Packets;
use test_machine::running::DEADLINE;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use vmm_core_defs::debug_rpc::DebugError;

/// The demo guest, held, with a socket for programs.
struct Guest {
    process: Running,
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Guest {
    /// `None`, with the reason printed, if this host has no KVM.
    fn start(options: &[&str]) -> Option<Self> {
        if !kvm_here() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rpc");
        let rpc = format!("unix:{}", path.display());
        let mut process = Running::start(&[&["--rpc", &rpc], options].concat());
        process.wait_for(&format!("rpc: listening on {rpc}"));
        Some(Self {
            process,
            path,
            folder,
        })
    }

    fn program(&self) -> Result<Debugger, Error> {
        Debugger::connect(&format!("unix:{}", self.path.display()))
    }
}

/// The symbols of the demo guest.
fn symbols() -> Symbols {
    Symbols::parse(demo_guest::ELF).expect("an ELF file")
}

/// Whether another debugger is attached.
fn is_attached(error: &Error) -> bool {
    let source = match error {
        Error::Refused { source, .. } => source,
        _ => return false,
    };
    *source == DebugError::AlreadyAttached
}

const NO_GDB: [&str; 2] = ["--gdb", "off"];

#[test]
fn the_program_of_the_guide_debugs_the_guest_without_gdb() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let mode = fs::metadata(&guest.path).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let mut vm = guest.program().expect("attached");
    let elf = guest.folder.path().join("demo.elf");
    fs::write(&elf, demo_guest::ELF).expect("writable");
    vm.load_symbols(&elf).expect("an ELF file");
    let rounds = session::two_rounds(&mut vm).expect("two rounds");
    assert_eq!(rounds.counted, 2);
    // Every member, of the types that C has.
    assert_eq!(rounds.cpu["online"], Value::Bool(true));
    assert_eq!(rounds.cpu["id"].as_u64(), Some(vm.current().index().into()));
    let text = rounds.cpu.to_string();
    assert!(text.starts_with("{online = true, id = "), "{text}");
    assert!(text.contains(", primes = "), "{text}");
    let reached = session::run_to_round(&mut vm, 50).expect("a later round");
    assert!(reached > 50, "{reached}");
    let text = session::print_rounds(&mut vm, 3).expect("three rounds");
    let printed = |line: &str| line.strip_prefix("round ")?.parse::<u64>().ok();
    assert!(
        text.lines().all(|line| printed(line) >= Some(reached)),
        "{text}"
    );
    vm.detach().expect("attached");

    let address = format!("unix:{}", guest.path.display());
    let counter = session::async_rounds(&address, elf.to_str().expect("text"));
    let counter = pal_async::local::block_on(counter).expect("another round");
    assert!(counter >= 2, "{counter}");

    let mut vm = loop {
        // The VMM hears of the end of the session a little later.
        match guest.program() {
            Ok(vm) => break vm,
            Err(error) => assert!(is_attached(&error), "{error}"),
        }
    };
    vm.set_symbols(symbols());
    session::power_off(&mut vm).expect("it ends");
    let error = vm.wait(DEADLINE).expect_err("it has ended").to_string();
    assert!(error.contains("switched itself off"), "{error}");
    assert_eq!(guest.process.finish().code, Some(0));
    assert!(!guest.path.exists(), "the socket file is left");
}

#[test]
fn a_dropped_debugger_lets_the_guest_run_without_its_breakpoints() {
    let Some(mut guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let mut vm = guest.program().expect("attached");
    vm.set_symbols(symbols());
    let round = vm.break_at("do_round").expect("set");
    let function = symbols().address("do_round").expect("known");
    let line = symbols().line(function).expect("debug information");
    assert!(line.to_string().contains("main.c:"), "{line}");
    vm.run_until(&round, DEADLINE).expect("a round");
    vm.step_n(3).expect("three steps");
    let pc = vm.current().pc().expect("stopped");
    let (name, distance) = symbols()
        .function(pc)
        .map(|(name, distance)| (name.to_owned(), distance))
        .expect("known");
    assert_eq!(name, "do_round");
    assert!(distance > 0);
    drop(vm);
    guest.process.wait_for("demo guest: CPU 1 is up");
    let mut vm = guest.program().expect("attached again");
    vm.set_symbols(symbols());
    let before: u64 = vm.read("counter").expect("mapped");
    vm.resume().expect("stopped");
    let error = vm.wait(Duration::from_millis(300)).expect_err("no stop");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(vm.read::<u64>("counter").expect("mapped") > before);
    // It belongs to the session that has ended.
    drop(round);
    vm.step().expect("still attached");
}

#[test]
fn a_hardware_breakpoint_stops_the_guest_before_its_code_runs() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let mut vm = guest.program().expect("attached");
    vm.set_symbols(symbols());
    let round = vm.hbreak_at("do_round").expect("set");
    let report = vm.break_at("run_scenario").expect("set");
    let stop = vm.run_until(&round, DEADLINE).expect("a round");
    assert_eq!(stop.kind(), StopKind::Breakpoint);
    assert_eq!(vm.current().pc().expect("stopped"), round.address());
    assert!(
        vm.read_struct("struct cpu", vm.current().arg(0).expect("a pointer"))
            .is_ok()
    );
    vm.run_until(&round, DEADLINE).expect("another round");
    // Without the hardware breakpoint, the other one is next.
    round.remove();
    vm.run_until(&report, DEADLINE)
        .expect("the end of the rounds");
}

#[test]
fn a_panic_of_the_guest_is_a_stop_if_the_program_asks_for_it() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let mut vm = guest.program().expect("attached");
    vm.set_symbols(symbols());
    let round = vm.break_at("do_round").expect("set");
    vm.run_until(&round, DEADLINE).expect("a round");
    round.remove();
    let on = vm.stop_on([GuestEventKind::Panic]).expect("attached");
    assert!(on.contains(GuestEventKind::Panic) && !on.contains(GuestEventKind::PowerOff));
    // SCENARIO_PANIC
    vm.write("scenario", 8_u32).expect("mapped");
    vm.resume().expect("stopped");
    let stop = vm.wait_for(StopKind::Panic, DEADLINE).expect("a panic");
    assert_eq!(stop.vp(), Some(0));
    let (name, _) = symbols()
        .function(vm.current().pc().expect("stopped"))
        .map(|(name, at)| (name.to_owned(), at))
        .expect("known");
    assert_eq!(name, "report_panic");
}

#[test]
fn names_that_are_not_known_are_refused_in_words() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let mut vm = guest.program().expect("attached");
    let error = vm.break_at("do_round").expect_err("no symbols").to_string();
    assert!(error.contains("load_symbols"), "{error}");
    vm.set_symbols(symbols());
    for (error, hint) in [
        (vm.break_at("do_nothing").map(drop), "`nm`"),
        (vm.read_struct("struct gpu", 0).map(drop), "struct cpu"),
        (vm.load_symbols("/nonexistent").map(drop), "ELF file"),
        (vm.vp(7).pc().map(drop), "VP 7"),
        (vm.vp(0).reg("eax").map(drop), "rax"),
    ] {
        let error = error.expect_err(hint).to_string();
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn bytes_of_another_protocol_change_nothing() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    for text in [
        "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "+$?#3f",
        "\0\0\0\0",
    ] {
        let mut socket = UnixStream::connect(&guest.path).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        socket.write_all(text.as_bytes()).expect("it reads");
        // The hello of the VMM, and the end.
        let mut answer = Vec::new();
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{text}");
        }
        assert!(answer.len() < 64, "{text}: {answer:?}");
    }
    // The guest is held before its first instruction.
    let vm = guest.program().expect("attached");
    let counter = symbols().address("counter").expect("known");
    assert_eq!(vm.read::<u64>(counter).expect("before paging"), 0);
    assert_eq!(vm.last_stop().kind(), StopKind::Interrupt);
    let entry = vm.vp(0).pc().expect("stopped");
    drop(vm);
    // It stays held when a program that has not run it goes.
    let vm = guest.program().expect("attached again");
    assert_eq!(vm.vp(0).pc().expect("stopped"), entry);
}

#[test]
fn gdb_and_a_program_keep_each_other_out_and_come_one_after_the_other() {
    let Some(mut guest) = Guest::start(&["--gdb", "127.0.0.1:0"]) else {
        return;
    };
    let mut packets = Packets::connect(&guest.process.address());
    assert!(packets.ask("?").starts_with('T'));
    let error = guest.program().expect_err("gdb is attached");
    assert!(is_attached(&error), "{error}");
    assert_eq!(packets.ask("D"), "OK");
    let vm = guest.program().expect("attached");
    let mut packets = Packets::connect(&guest.process.address());
    let reply = packets.ask("?");
    assert!(reply.starts_with('E'), "{reply}");
    drop((vm, packets));
    guest.process.signal("TERM");
    guest.process.finish();
}

#[test]
fn the_operator_takes_the_guest_from_a_program() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let mut vm = guest.program().expect("attached");
    vm.resume().expect("stopped");
    guest.process.signal("USR1");
    let error = vm.wait(DEADLINE).expect_err("evicted");
    assert!(matches!(error, Error::Gone { .. }), "{error}");
    guest.program().expect("the next program attaches");
}

#[test]
fn a_ninth_program_is_closed_and_the_next_one_is_served() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let connect = || UnixStream::connect(&guest.path).expect("it listens");
    let silent: Vec<_> = (0..8).map(|_| connect()).collect();
    let error = guest.program().expect_err("eight are connected");
    assert!(matches!(error, Error::Gone { .. }), "{error}");
    assert!(error.to_string().contains("8 programs"), "{error}");
    drop(silent);
    // The VMM sees the end of the eight before it accepts another one, or a little later.
    while guest.program().is_err() {}
}
