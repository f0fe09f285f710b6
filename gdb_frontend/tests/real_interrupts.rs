//! A real GDB, with a Ctrl-C that crosses with a stop.
//!
//! If GDB is not installed, the test prints `SKIP:` and the reason.

mod fake_guest;

use fake_guest::FakeGuest;
use gdb_frontend::regs::Layout;
use gdb_frontend::session::Action;
use gdb_frontend::session::Session;
use gdb_frontend::target::ResumeAction;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::Tid;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

const LAYOUT: Layout = Layout::X86_64 {
    avx: false,
    avx512: false,
    pkru: false,
};

/// Long enough for GDB on a busy machine. A hang is a failure.
const DEADLINE: Duration = Duration::from_secs(60);

/// When the guest runs for the first time, the user presses Ctrl-C, and the guest stops for another reason at that
/// moment. The second time the guest ends by itself.
#[test]
fn a_ctrl_c_that_crosses_with_a_stop_does_not_end_a_later_continue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("target remote {}", listener.local_addr().unwrap());
    let mut command = Command::new("gdb");
    command
        .args([
            "-nx",
            "-batch",
            "-ex",
            "set pagination off",
            "-ex",
            &connect,
        ])
        .args(["-ex", "continue", "-ex", "info threads", "-ex", "continue"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .env("LC_ALL", "C");
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("SKIP: gdb does not start: {error}; install it with `apt-get install gdb`");
            return;
        }
    };
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut guest = FakeGuest::new(LAYOUT, 2);
    let mut session = Session::new(guest.info());
    let mut runs = 0;
    let mut interrupts = Vec::new();
    let mut buffer = [0; 4096];
    'connected: loop {
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => session.push(&buffer[..len]),
            Err(error) => panic!("GDB is silent: {error}"),
        }
        while let Some(action) = session.poll_action() {
            let op = match action {
                Action::Send(bytes) => {
                    socket.write_all(&bytes).unwrap();
                    continue;
                }
                Action::Close => break 'connected,
                Action::Target(op) => op,
            };
            session.complete(guest.answer(&op));
            let reason = match &op {
                TargetOp::Resume(resume) if resume.others == ResumeAction::Continue => {
                    runs += 1;
                    if runs == 1 {
                        let pid = child.id().to_string();
                        let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
                        assert!(sent.success());
                        continue;
                    }
                    // The session requests its next operation at once.
                    if let Some(Action::Target(op)) = session.poll_action() {
                        interrupts.push((runs, op));
                    }
                    StopReason::Exited(0)
                }
                TargetOp::Interrupt => {
                    interrupts.push((runs, op));
                    StopReason::Trap
                }
                _ => continue,
            };
            session.stopped(
                Stop {
                    thread: Tid::new(1),
                    reason,
                },
                None,
            );
        }
    }
    drop(socket);
    let output = child.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    assert_eq!(interrupts, [(1, TargetOp::Interrupt)], "{output}");
    assert_eq!(runs, 2, "{output}");
    for part in ["received signal SIGTRAP", "exited normally"] {
        assert!(output.contains(part), "no `{part}` in:\n{output}");
    }
}
