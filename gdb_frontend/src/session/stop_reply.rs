//! Stop replies (GDB manual, node "Stop Reply Packets").

use crate::command::ClientFeatures;
use crate::framing::PacketWriter;
use crate::target::BreakpointKind;
use crate::target::EndSignal;
use crate::target::StopReason;
use crate::target::Tid;

/// GDB's signal numbers, which differ from the host's (GDB's `include/gdb/signals.def`).
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGTRAP: u8 = 5;
const SIGABRT: u8 = 6;
const SIGKILL: u8 = 9;
const SIGSEGV: u8 = 11;
const SIGTERM: u8 = 15;

/// `W AA`: "The process exited, and AA is the exit status." `X AA`: "The process terminated with signal AA." `None` if
/// the guest has not ended.
pub(super) fn ending(reason: StopReason) -> Option<Vec<u8>> {
    let mut packet = PacketWriter::default();
    write_ending(reason, &mut packet).then(|| packet.finish())
}

/// Adds what [`ending`] describes. Whether the guest has ended.
pub(super) fn write_ending(reason: StopReason, packet: &mut PacketWriter) -> bool {
    let (kind, number) = match reason {
        StopReason::Exited(status) => ("W", status),
        StopReason::Terminated(signal) => (
            "X",
            match signal {
                EndSignal::Abort => SIGABRT,
                EndSignal::Kill => SIGKILL,
                EndSignal::Fault => SIGSEGV,
                EndSignal::Terminate => SIGTERM,
            },
        ),
        _ => return false,
    };
    packet.str(kind);
    packet.hex(&[number]);
    true
}

/// `T AA n1:r1;n2:r2;...`, with the thread and, if the client understands it, the kind of the stop.
pub(super) fn packet(reason: StopReason, thread: Tid, client: ClientFeatures) -> PacketWriter {
    let mut packet = PacketWriter::default();
    write(reason, thread, client, &mut packet);
    packet
}

fn write(reason: StopReason, thread: Tid, client: ClientFeatures, packet: &mut PacketWriter) {
    packet.str("T");
    packet.hex(&[signal(reason)]);
    packet.str("thread:");
    packet.number(u64::from(thread.get()));
    packet.str(";");
    match reason {
        StopReason::SoftwareBreakpoint if client.swbreak => packet.str("swbreak:;"),
        StopReason::HardwareBreakpoint if client.hwbreak => packet.str("hwbreak:;"),
        StopReason::Watchpoint { kind, address } => {
            packet.str(match kind {
                BreakpointKind::Read => "rwatch:",
                BreakpointKind::Access => "awatch:",
                BreakpointKind::Write | BreakpointKind::Software | BreakpointKind::Hardware => {
                    "watch:"
                }
            });
            packet.number(address);
            packet.str(";");
        }
        _ => {}
    }
}

/// The stop reply of one of several threads. Signal 0 means that the thread has no stop reason of its own.
pub(super) fn of_thread(
    reason: Option<StopReason>,
    thread: Tid,
    client: ClientFeatures,
) -> Vec<u8> {
    let mut packet = PacketWriter::default();
    write_of_thread(reason, thread, client, &mut packet);
    packet.finish()
}

/// Adds what [`of_thread`] describes.
pub(super) fn write_of_thread(
    reason: Option<StopReason>,
    thread: Tid,
    client: ClientFeatures,
    packet: &mut PacketWriter,
) {
    match reason {
        Some(reason) => write(reason, thread, client, packet),
        None => {
            packet.str("T00thread:");
            packet.number(u64::from(thread.get()));
            packet.str(";");
        }
    }
}

/// A thread in `jThreadsInfo`, with the keys and values of LLDB's "GDB Remote Protocol Extensions". `info` is a line about the thread; LLDB shows only the name, so the
/// line becomes part of the name. `registers` is a JSON dictionary.
pub(super) fn json(reason: Option<StopReason>, thread: Tid, info: &str, registers: &str) -> String {
    let id = thread.get();
    let mut head = format!("{{\"tid\":{id},\"name\":\"vCPU {}", id - 1);
    if !info.is_empty() {
        head.push_str(" (");
        for character in info.chars() {
            match character {
                '"' | '\\' => head.extend(['\\', character]),
                control if control.is_control() => head.push(' '),
                other => head.push(other),
            }
        }
        head.push(')');
    }
    head.push_str("\",\"registers\":");
    head.push_str(registers);
    let Some(reason) = reason else {
        return format!("{head}}}");
    };
    let word = match reason {
        StopReason::Trap => ",\"reason\":\"trace\"".to_owned(),
        StopReason::SoftwareBreakpoint | StopReason::HardwareBreakpoint => {
            ",\"reason\":\"breakpoint\"".to_owned()
        }
        // The description contains the address and the index of the watchpoint. If the index is invalid, LLDB looks up
        // the watchpoint by the address.
        StopReason::Watchpoint { address, .. } => {
            format!(
                ",\"reason\":\"watchpoint\",\"description\":\"{address} {}\"",
                u32::MAX
            )
        }
        _ => ",\"reason\":\"signal\"".to_owned(),
    };
    format!("{head},\"signal\":{}{word}}}", signal(reason))
}

const fn signal(reason: StopReason) -> u8 {
    match reason {
        StopReason::Interrupt => SIGINT,
        StopReason::Trap
        | StopReason::SoftwareBreakpoint
        | StopReason::HardwareBreakpoint
        | StopReason::Watchpoint { .. } => SIGTRAP,
        StopReason::Reset | StopReason::PowerOff => SIGQUIT,
        StopReason::TripleFault => SIGSEGV,
        StopReason::Crashed | StopReason::Panic => SIGABRT,
        // These reasons have their own packets.
        StopReason::Exited(_) | StopReason::Terminated(_) => SIGKILL,
    }
}
