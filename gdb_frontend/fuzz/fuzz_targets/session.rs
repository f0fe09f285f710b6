//! No client makes a session panic, send something malformed, or ask the guest for what the contract forbids.
//!
//! Lines of the input are packets, which get their frame here; a line that begins with `!` is sent as it is.

#![no_main]

#[path = "../../tests/fake_guest/mod.rs"]
mod fake_guest;

use fake_guest::FakeGuest;
use gdb_frontend::PACKET_SIZE;
use gdb_frontend::fuzzing::Decoder;
use gdb_frontend::fuzzing::Frame;
use gdb_frontend::fuzzing::expand;
use gdb_frontend::regs::Layout;
use gdb_frontend::session::Action;
use gdb_frontend::session::Session;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::Tid;
use libfuzzer_sys::fuzz_target;

const THREADS: u32 = 2;

fn check(op: &TargetOp) {
    let exists = |thread: &Tid| assert!(thread.get() <= THREADS, "{op:?}");
    match op {
        TargetOp::ReadMemory { address, len, .. } | TargetOp::ReadPhysical { address, len } => {
            assert!(*len >= 1 && *len <= PACKET_SIZE, "{op:?}");
            assert!(address.checked_add(*len as u64 - 1).is_some(), "{op:?}");
        }
        TargetOp::WriteMemory { address, data, .. } | TargetOp::WritePhysical { address, data } => {
            assert!(!data.is_empty(), "{op:?}");
            assert!(
                address.checked_add(data.len() as u64 - 1).is_some(),
                "{op:?}"
            );
        }
        TargetOp::Resume(resume) => {
            for (at, (thread, _)) in resume.actions.iter().enumerate() {
                exists(thread);
                assert!(
                    resume.actions[..at]
                        .iter()
                        .all(|(other, _)| other != thread),
                    "{op:?}"
                );
            }
        }
        TargetOp::ReadRegisters { thread }
        | TargetOp::WriteRegisters { thread, .. }
        | TargetOp::ThreadExtraInfo { thread }
        | TargetOp::StopReason { thread }
        | TargetOp::MemoryRegion { thread, .. }
        | TargetOp::Monitor { thread, .. } => exists(thread),
        _ => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let layout = Layout::X86_64 {
        avx: false,
        avx512: false,
        pkru: false,
    };
    let mut guest = FakeGuest::new(layout, THREADS);
    let mut session = Session::new(guest.info());
    let mut sent = Vec::new();
    // The first packet opens the session. Most random bytes before it would close the connection.
    session.push(b"$?#3f");
    for line in input.split(|byte| *byte == b'\n') {
        match line.strip_prefix(b"!") {
            Some(raw) => session.push(raw),
            None => {
                let sum = line.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
                session.push(&[b"$", line, format!("#{sum:02x}").as_bytes()].concat());
            }
        }
        while let Some(action) = session.poll_action() {
            match action {
                Action::Send(bytes) => sent.extend_from_slice(&bytes),
                Action::Target(op) => {
                    check(&op);
                    session.complete(guest.answer(&op));
                    // If a single thread was resumed, the guest runs on, so packets arrive in both states of the guest.
                    if matches!(&op, TargetOp::Resume(resume) if resume.actions.len() != 1) {
                        let stop = Stop {
                            thread: Tid::new(2),
                            reason: StopReason::Trap,
                        };
                        session.stopped(stop, None);
                    }
                }
                Action::Close => {}
            }
        }
    }
    let mut decoder = Decoder::default();
    decoder.push(&sent);
    let mut read = 0;
    while let Some(frame) = decoder.next_frame() {
        read += match frame {
            Frame::Packet(payload) => {
                assert!(expand(payload).is_some());
                payload.len() + 4
            }
            Frame::Ack | Frame::Nack => 1,
            other => panic!("{other:?} was sent"),
        };
    }
    assert_eq!(read, sent.len());
});
