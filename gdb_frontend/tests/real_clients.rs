//! GDB and LLDB, over TCP, with a session on a fake guest. They accept the target description and the replies, and show
//! the right values.

mod fake_guest;

use fake_guest::FakeGuest;
use gdb_frontend::regs::Layout;
use gdb_frontend::session::Action;
use gdb_frontend::session::Session;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::Tid;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

const X86_64: Layout = Layout::X86_64 {
    avx: true,
    avx512: true,
    pkru: true,
};

/// Long enough for a debugger on a busy machine. A hang is a failure.
const DEADLINE: Duration = Duration::from_secs(120);

/// Serves one client until it disconnects. The guest stops as soon as it is resumed.
fn serve(listener: &TcpListener, layout: Layout) {
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut guest = FakeGuest::new(layout, 2);
    let mut session = Session::new(guest.info());
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => session.push(&buffer[..len]),
        }
        while let Some(action) = session.poll_action() {
            match action {
                Action::Send(bytes) => {
                    if socket.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Action::Target(op) => {
                    session.complete(guest.answer(&op));
                    if let TargetOp::Resume(_) = op {
                        let stop = Stop {
                            thread: Tid::new(1),
                            reason: StopReason::Trap,
                        };
                        session.stopped(stop, None);
                    }
                }
                Action::Close => return,
            }
        }
    }
}

/// The output of a debugger. `None` if it is not installed. `connect` makes the connect command from the address.
fn run(
    layout: Layout,
    program: &str,
    arguments: &[&str],
    flag: &str,
    connect: impl Fn(&str) -> String,
    commands: &[&str],
) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = Command::new(program);
    command.args(arguments).args([flag, &connect(&address)]);
    for line in commands {
        command.args([flag, line]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("LC_ALL", "C");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: {program} does not start: {error}");
            return None;
        }
    };
    std::thread::spawn(move || serve(&listener, layout));
    let (sender, receiver) = mpsc::channel();
    for pipe in [
        Box::new(child.stdout.take().unwrap()) as Box<dyn Read + Send>,
        Box::new(child.stderr.take().unwrap()),
    ] {
        let sender = sender.clone();
        let mut pipe = pipe;
        std::thread::spawn(move || {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).unwrap();
            sender.send(String::from_utf8_lossy(&text).into_owned())
        });
    }
    let mut output = String::new();
    for _ in 0..2 {
        match receiver.recv_timeout(DEADLINE) {
            Ok(text) => output.push_str(&text),
            Err(_) => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{program} hangs; so far: {output}");
            }
        }
    }
    child.wait().unwrap();
    Some(output)
}

fn gdb(layout: Layout, program: &str, commands: &[&str]) -> Option<String> {
    let connect = |address: &str| format!("target remote {address}");
    let arguments = [
        "-nx",
        "-batch",
        "-ex",
        "set width 0",
        "-ex",
        "set pagination off",
    ];
    run(layout, program, &arguments, "-ex", connect, commands)
}

fn assert_shows(output: &str, expected: &[&str]) {
    for line in expected {
        assert!(output.contains(line), "{line:?} is not in:\n{output}");
    }
}

#[test]
fn gdb_shows_the_registers_of_x86() {
    let Some(output) = gdb(
        X86_64,
        "gdb",
        &[
            "info registers",
            "p $xmm0",
            "p $ymm0",
            "p $zmm31",
            "p $mxcsr",
            "p $pkru",
            "p/x $cr3",
            "p $cr0",
            "p $xcr0",
        ],
    ) else {
        return;
    };
    assert_shows(
        &output,
        &[
            "rax            0x1000",
            "rip            0x1000              0x1000",
            "eflags         0x246               [ PF ZF IF ]",
            "k_gs_base      0x103b",
            "cr0            0x80050033          2147811379",
            "cr3            0x1234001",
            "cr4            0x6f0               1776",
            "efer           0xd01               3329",
            "xcr0           <unavailable>",
            "cs_attr        0xa09b              [ TYPE=11 S DPL=0 P L G ]",
            "$1 = {v4_float = {",
            "v2_int64 = {4136, 0}, uint128 = 4136}",
            // 4136 and 4198 are the values of xmm0 and ymm0h in the fake guest.
            "v2_int128 = {4136, 4198}}",
            "v4_int128 = {4229, 4245, 4277, 0}}",
            "$4 = [ IM DM ZM OM UM PM ]",
            "$5 = 4286",
            "$6 = 0x1234001",
            "$7 = 2147811379",
            "$8 = <unavailable>",
        ],
    );
}

#[test]
fn gdb_reads_writes_steps_and_detaches() {
    let Some(output) = gdb(
        X86_64,
        "gdb",
        &[
            "info threads",
            "x/4xb 0x1010",
            "set var *(char *)0x1011 = 0x77",
            "x/4xb 0x1010",
            "set var $rbx = 0x1122334455667788",
            "p/x $rbx",
            "set var $xmm1.uint128 = 5",
            "p $xmm1.uint128",
            "stepi",
            "p/x $rip",
            "thread 2",
            "p/x $rip",
            "thread 1",
            "hbreak *0x1005",
            "watch *(int *)0x1800",
            "continue",
            "monitor help",
            "monitor nonsense",
            "x/1xb 0x9999999",
            "set var $cs_limit = 1",
            "p/x $cs_limit",
            "detach",
        ],
    ) else {
        return;
    };
    assert_shows(
        &output,
        &[
            "* 1    Thread 1 \"vCPU 0\" ",
            "2    Thread 2 \"vCPU 1\" (halted, <idle>) 0x0000000000002000",
            "0x1010:\t0x10\t0x11\t0x12\t0x13",
            "0x1010:\t0x10\t0x77\t0x12\t0x13",
            "$1 = 0x1122334455667788",
            "$2 = 5",
            "$3 = 0x1001",
            "$4 = 0x2000",
            "Hardware assisted breakpoint 1 at 0x1005",
            "Hardware watchpoint 2: *(int *)0x1800",
            "Thread 1 \"vCPU 0\" received signal SIGTRAP",
            "help  this list",
            "no command nonsense; try: monitor help",
            "Cannot access memory at address 0x9999999",
            "Could not write register \"cs_limit\"; remote failure reply 'E5f'",
            "$5 = 0x104f",
            "[Inferior 1 (Remote target) detached]",
        ],
    );
}

#[test]
fn gdb_assigns_a_plain_number_to_every_register_of_at_most_64_bits() {
    for (layout, program) in [(X86_64, "gdb"), (Layout::Aarch64, "gdb-multiarch")] {
        let names: Vec<_> = layout
            .table()
            .iter()
            .filter(|reg| reg.bits <= 64 && reg.name != "cs_limit")
            .map(|reg| reg.name.as_str())
            .collect();
        // The numbers as people type them, with the maximum width: an `int` and a `long`.
        let commands: Vec<_> = names
            .iter()
            .flat_map(|name| [format!("set var ${name} = 0x81"), format!("p/x ${name}")])
            .chain((layout == X86_64).then(|| "set var $cr0 = 0x80050033".to_owned()))
            .chain((layout == X86_64).then(|| "p/x $cr0".to_owned()))
            .collect();
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        let Some(output) = gdb(layout, program, &commands) else {
            continue;
        };
        let shown = output
            .lines()
            .filter(|line| line.ends_with(" = 0x81"))
            .count();
        assert_eq!(shown, names.len(), "{output}");
        assert!(!output.contains("Invalid cast"), "{output}");
        if layout == X86_64 {
            assert_shows(&output, &["= 0x80050033"]);
        }
    }
}

#[test]
fn gdb_shows_the_registers_of_arm() {
    let Some(output) = gdb(
        Layout::Aarch64,
        "gdb-multiarch",
        &[
            "p/x $x30",
            "p $v0.uint128",
            "p $cpsr",
            "p/x $sctlr_el1",
            "p $pc",
            "info registers system",
        ],
    ) else {
        return;
    };
    assert_shows(
        &output,
        &[
            "$1 = 0x101e",
            // 4130 is the value of v0 in the fake guest.
            "$2 = 4130",
            "$3 = [ SP EL=0 BTYPE=0 SSBS ]",
            "$4 = 0x1046",
            "$5 = (void (*)()) 0x1000",
            "ttbr1_el1      0x1049",
        ],
    );
}

#[test]
fn lldb_reads_writes_steps_and_detaches() {
    let connect = |address: &str| format!("gdb-remote {address}");
    let commands = [
        "register read rax rip eflags",
        "register read xmm0 cr0 cr3 efer",
        "register read --all",
        "memory read --format x --size 1 --count 4 0x1010",
        "memory write 0x1011 0x77",
        "memory read --format x --size 1 --count 4 0x1010",
        "register write rbx 0x1122334455667788",
        "register read rbx",
        "thread list",
        "thread step-inst",
        "register read rip",
        "process plugin packet monitor help",
        "detach",
    ];
    let Some(output) = run(X86_64, "lldb", &["-x", "-b"], "-o", connect, &commands) else {
        return;
    };
    assert_shows(
        &output,
        &[
            "stop reason = signal SIGTRAP",
            "rax = 0x0000000000001000",
            "eflags = 0x00000246",
            "xmm0 = {0x28 0x10",
            "cr0 = 0x0000000080050033",
            "efer = 0x0000000000000d01",
            "zmm31h = {0xb5 0x10",
            "0x00001010: 0x10 0x11 0x12 0x13",
            "0x00001010: 0x10 0x77 0x12 0x13",
            "rbx = 0x1122334455667788",
            "thread #2: tid = 0x0002, 0x0000000000002000, name = 'vCPU 1 (halted, <idle>)'",
            "stop reason = instruction step into",
            "rip = 0x0000000000001001",
            "help  this list",
            "Process 1 detached",
        ],
    );
}

#[test]
fn lldb_gets_threads_and_registers_with_a_stop_and_does_not_ask_for_them() {
    let connect = |address: &str| format!("gdb-remote {address}");
    let commands = [
        "log enable gdb-remote packets",
        "thread step-inst",
        "thread list",
        "register read rip --format hex",
        "thread select 2",
        "register read rip rax --format hex",
        "detach",
    ];
    let Some(output) = run(X86_64, "lldb", &["-x", "-b"], "-o", connect, &commands) else {
        return;
    };
    assert_shows(
        &output,
        &[
            "rip = 0x0000000000001001",
            "rip = 0x0000000000002000",
            "rax = 0x0000000000002000",
            // One packet reads a register of another thread.
            "$p0;thread:0002;",
        ],
    );
    for packet in ["$Hg", "$qfThreadInfo", "$p10"] {
        assert!(!output.contains(packet), "{packet} is in:\n{output}");
    }
}

#[test]
fn lldb_prints_general_registers_only_and_its_kill_is_answered() {
    let connect = |address: &str| format!("gdb-remote {address}");
    let commands = ["register read", "process kill"];
    let Some(output) = run(X86_64, "lldb", &["-x", "-b"], "-o", connect, &commands) else {
        return;
    };
    let (registers, kill) = output
        .split_once("(lldb) process kill")
        .expect("both are there");
    let registers = registers
        .lines()
        .filter(|line| line.contains(" = 0x"))
        .count();
    assert!(
        (24..40).contains(&registers),
        "{registers} registers in:\n{output}"
    );
    assert!(
        !kill.contains("failed to send") && !kill.contains("unexpected response"),
        "{output}"
    );
    assert!(kill.contains("exited with status = 9"), "{output}");
}
