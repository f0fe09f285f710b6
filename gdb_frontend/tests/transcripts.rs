//! Sessions written down byte by byte, in `tests/transcripts/`.
//!
//! | line | meaning |
//! |---|---|
//! | `# ...` | a remark; if the first is `# symbols`, there is a file with the symbols of the guest |
//! | `> BYTES` | the client sends this, in one piece; `{...}` stands for a packet, to spare people the checksums |
//! | `! EVENT` | the guest stops; see `event` below |
//! | `< BYTES` | the server sends exactly this, in one piece |
//! | `= OPERATION` | the guest is asked for this |
//! | `= close` | the connection is closed |
//!
//! Bytes that do not print, and the backslash, are written `\xNN`. `TRAPGATE_BLESS=1 cargo test -p trapgate-gdb-frontend` writes the lines with
//! `<` and `=` anew.

mod fake_guest;

use fake_guest::FakeGuest;
use gdb_frontend::regs::Layout;
use gdb_frontend::session::Action;
use gdb_frontend::session::Session;
use gdb_frontend::target::BreakpointKind;
use gdb_frontend::target::EndSignal;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::Tid;
use std::fmt::Write;
use std::path::Path;

const LAYOUT: Layout = Layout::X86_64 {
    avx: false,
    avx512: false,
    pkru: false,
};

#[test]
fn transcripts_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    let mut wrong = String::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let written = std::fs::read_to_string(&path).unwrap();
        let played = play(&written);
        count += 1;
        if written == played {
            continue;
        }
        if std::env::var_os("TRAPGATE_BLESS").is_some() {
            std::fs::write(&path, played).unwrap();
        } else {
            write!(wrong, "\n{}:\n", path.display()).unwrap();
            difference(&mut wrong, &written, &played);
        }
    }
    assert!(count > 10, "only {count} transcripts are there");
    assert!(wrong.is_empty(), "{wrong}");
}

/// The first line that differs, with the lines around it.
fn difference(out: &mut String, written: &str, played: &str) {
    let at = written
        .lines()
        .zip(played.lines())
        .take_while(|(one, other)| one == other)
        .count();
    for (who, text) in [("written", written), ("played", played)] {
        writeln!(out, "  {who}, from line {}:", at + 1).unwrap();
        for line in text.lines().skip(at.saturating_sub(2)).take(8) {
            writeln!(out, "    {line:.300}").unwrap();
        }
    }
}

/// Plays the actions of the client and of the guest, and writes down all events.
fn play(script: &str) -> String {
    let mut guest = FakeGuest::new(LAYOUT, 3);
    guest.symbols = script.starts_with("# symbols");
    let mut session = Session::new(guest.info());
    let mut out = String::new();
    for line in script.lines() {
        match line.split_at(line.len().min(2)) {
            ("< ", _) | ("= ", _) => continue,
            ("> ", bytes) => session.push(&unescape(bytes)),
            ("! ", event) => {
                let (stop, console) = self::event(event);
                session.stopped(stop, console);
            }
            _ => {}
        }
        writeln!(out, "{line}").unwrap();
        while let Some(action) = session.poll_action() {
            match action {
                Action::Send(bytes) => writeln!(out, "< {}", escape(&bytes)).unwrap(),
                Action::Close => writeln!(out, "= close").unwrap(),
                Action::Target(op) => {
                    writeln!(out, "= {}", shorten(&op)).unwrap();
                    session.complete(guest.answer(&op));
                }
            }
        }
    }
    out
}

fn shorten(op: &TargetOp) -> String {
    match op {
        TargetOp::WriteMemory { data, .. } if data.len() > 64 => {
            format!("WriteMemory of {} bytes", data.len())
        }
        op => format!("{op:?}"),
    }
}

/// Parses `THREAD REASON [CONSOLE TEXT]`. Thread 0 means none.
fn event(text: &str) -> (Stop, Option<&str>) {
    let mut words = text.splitn(3, ' ');
    let thread = words
        .next()
        .and_then(|id| id.parse().ok())
        .expect("a thread");
    let watch = |kind| StopReason::Watchpoint {
        kind,
        address: 0x1234,
    };
    let reason = match words.next().expect("a reason") {
        "interrupt" => StopReason::Interrupt,
        "trap" => StopReason::Trap,
        "swbreak" => StopReason::SoftwareBreakpoint,
        "hwbreak" => StopReason::HardwareBreakpoint,
        "watch" => watch(BreakpointKind::Write),
        "rwatch" => watch(BreakpointKind::Read),
        "awatch" => watch(BreakpointKind::Access),
        "reset" => StopReason::Reset,
        "power-off" => StopReason::PowerOff,
        "triple-fault" => StopReason::TripleFault,
        "panic" => StopReason::Panic,
        "exited" => StopReason::Exited(0),
        "exited-3" => StopReason::Exited(3),
        "faulted" => StopReason::Terminated(EndSignal::Fault),
        "crashed" => StopReason::Crashed,
        other => panic!("no reason {other}"),
    };
    let thread = Tid::new(thread);
    (Stop { thread, reason }, words.next())
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut packet = None;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                let digits: Vec<u8> = bytes.by_ref().take(3).skip(1).collect();
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).expect("\\xNN"));
            }
            b'{' if packet.is_none() => {
                out.push(b'$');
                packet = Some(out.len());
            }
            b'}' if packet.is_some() => {
                let payload = &out[packet.take().unwrap()..];
                let sum = payload.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b));
                out.extend_from_slice(format!("#{sum:02x}").as_bytes());
            }
            _ => out.push(byte),
        }
    }
    out
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, &byte| {
        match byte {
            b' '..=b'~' if byte != b'\\' => out.push(char::from(byte)),
            _ => write!(out, "\\x{byte:02x}").unwrap(),
        }
        out
    })
}
